package enroll

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
)

// ErrToken is for a text that is no token.
var ErrToken = errors.New("not an enrollment token")

// prefix begins every token; the digit is the version of its form.
const prefix = "patronus1."

const (
	secretSize   = 32
	maxAddresses = 4
	maxName      = 63
	maxAddress   = 259 // host (RFC 1035, 2.3.4) and port
	maxToken     = 2048
)

// Token is an enrollment token: it makes one appliance one site, once. It never
// prints; [Token.Reveal] is the text to carry.
type Token struct {
	Fabric, Site string
	// Addresses are where the dashboard is, host:port, to be tried in order.
	Addresses []string
	// Certificate is the SHA-256 of the dashboard's certificate (DER).
	Certificate [sha256.Size]byte
	// Root is what certifies the fabric's controllers.
	Root ed25519.PublicKey

	secret func() [secretSize]byte // a function for the reason in configs.PrivateKey
}

// New makes a token with a new secret of 256 bits.
func New(fabric, site string, addresses []string, certificate [sha256.Size]byte, root ed25519.PublicKey) (Token, error) {
	var secret [secretSize]byte
	_, _ = rand.Read(secret[:]) // never fails: it ends the program instead
	t := Token{
		Fabric: fabric, Site: site, Addresses: addresses, Certificate: certificate, Root: root,
		secret: func() [secretSize]byte { return secret },
	}
	return t, t.check()
}

func (t *Token) check() error {
	switch {
	case t.Fabric == "" || len(t.Fabric) > maxName || t.Site == "" || len(t.Site) > maxName:
		return fmt.Errorf("%w: it names no fabric or site", ErrToken)
	case len(t.Addresses) == 0 || len(t.Addresses) > maxAddresses:
		return fmt.Errorf("%w: it has 1 to %d addresses", ErrToken, maxAddresses)
	case len(t.Root) != ed25519.PublicKeySize:
		return fmt.Errorf("%w: it has no root key", ErrToken)
	}
	for _, a := range t.Addresses {
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" || len(a) > maxAddress {
			return fmt.Errorf("%w: %.80q is not host:port", ErrToken, a)
		}
	}
	return nil
}

// Hash is what a dashboard keeps of a token: it names the token and cannot be
// turned into one.
func (t *Token) Hash() [sha256.Size]byte { return HashSecret(t.bytes()) }

// HashSecret is [Token.Hash] of the secret that a claim brings.
func HashSecret(secret []byte) [sha256.Size]byte {
	return sha256.Sum256(append([]byte("patronus-token-v1\x00"), secret...))
}

// Secret is what the claim brings: a copy.
func (t *Token) Secret() []byte { return t.bytes() }

func (t *Token) bytes() []byte {
	if t.secret == nil {
		return nil
	}
	b := t.secret()
	return b[:]
}

// Reveal is the token as text of one line, in an alphabet that command lines, URLs
// and QR codes take. After the prefix it is in base64 (RFC 4648, 5):
//
//	32 bytes secret
//	32 bytes SHA-256 of the dashboard's certificate
//	32 bytes root key
//	u8 length, fabric
//	u8 length, site
//	u8 how many addresses, of each: u16 length, text
//	4 bytes of the SHA-256 of all of the above, against slips of the pen
func (t *Token) Reveal() string {
	b := append([]byte(nil), t.bytes()...)
	b = append(b, t.Certificate[:]...)
	b = append(b, t.Root...)
	for _, s := range []string{t.Fabric, t.Site} {
		b = append(b, byte(len(s)))
		b = append(b, s...)
	}
	b = append(b, byte(len(t.Addresses)))
	for _, a := range t.Addresses {
		b = binary.BigEndian.AppendUint16(b, uint16(len(a)))
		b = append(b, a...)
	}
	sum := sha256.Sum256(b)
	return prefix + base64.RawURLEncoding.EncodeToString(append(b, sum[:4]...))
}

// Parse reads what [Token.Reveal] wrote; space around it does not matter. Its
// errors are [ErrToken] and repeat nothing of the text.
func Parse(text string) (Token, error) {
	text, ok := strings.CutPrefix(strings.TrimSpace(text), prefix)
	if !ok || len(text) > maxToken {
		return Token{}, fmt.Errorf("%w: it begins with %s", ErrToken, prefix)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < 3*32+4 {
		return Token{}, fmt.Errorf("%w: characters are missing or wrong", ErrToken)
	}
	body := b[:len(b)-4]
	if sum := sha256.Sum256(body); string(sum[:4]) != string(b[len(body):]) {
		return Token{}, fmt.Errorf("%w: characters are missing or wrong", ErrToken)
	}
	in := cutter{rest: body}
	secret := [secretSize]byte(in.take(secretSize))
	t := Token{
		secret:      func() [secretSize]byte { return secret },
		Certificate: [sha256.Size]byte(in.take(sha256.Size)),
		Root:        in.take(ed25519.PublicKeySize),
		Fabric:      string(in.take(int(in.byte()))),
		Site:        string(in.take(int(in.byte()))),
	}
	for range min(in.byte(), maxAddresses) {
		t.Addresses = append(t.Addresses, string(in.take(int(in.byte())<<8|int(in.byte()))))
	}
	if in.short || len(in.rest) > 0 {
		return Token{}, fmt.Errorf("%w: characters are missing or wrong", ErrToken)
	}
	return t, t.check()
}

// cutter takes fields off a message; past its end it sets short.
type cutter struct {
	rest  []byte
	short bool
}

func (c *cutter) take(n int) []byte {
	if n > len(c.rest) {
		c.short, c.rest = true, nil
		return make([]byte, n)
	}
	b := c.rest[:n:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cutter) byte() byte { return c.take(1)[0] }

// String is "(token)".
func (Token) String() string { return "(token)" }

// GoString is "(token)".
func (Token) GoString() string { return "(token)" }
