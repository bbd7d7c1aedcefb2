package configs

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"time"
)

// Term is a signed statement about the dashboard role of one site: that it was
// promoted, or that it was demoted. Numbers rise with every statement in a
// fabric, which is how an old dashboard is fenced. It is immutable once signed
// or verified.
type Term struct {
	Fabric string `json:"fabric"`
	Site   string `json:"site"` // whose role it is
	// By is the site whose key signs: Site itself, where somebody had access to
	// its key, or the dashboard that hands its role over.
	By        string    `json:"by"`
	Number    uint64    `json:"term"`
	Dashboard bool      `json:"dashboard"` // promoted; false is demoted
	IssuedAt  time.Time `json:"issued_at"` // UTC
}

// The bytes that travel, all integers big-endian:
//
//	"patronus-term-v1\0"                what is signed
//	u16 length, fabric                      |
//	u16 length, site                        |
//	u16 length, by                          |
//	u64 number                              |
//	i64 issued at, ns since 1970            |
//	u8 1 promoted, 0 demoted                v
//	64 bytes Ed25519 signature (RFC 8032) over all of the above
//
// The leading words separate these signatures from any other use of the key.
const (
	termMagic = "patronus-term-v1\x00"
	termFixed = len(termMagic) + 3*2 + 8 + 8 + 1 + ed25519.SignatureSize
	maxTerm   = termFixed + 3*maxLabel
)

// maxLabel is the length of a name, bytes (RFC 1035, 2.3.4).
const maxLabel = 63

// Sign returns the bytes that travel and are kept. It refuses a statement that
// [ReadTerm] would not read.
func (t *Term) Sign(key *RootKey) ([]byte, error) {
	b := t.signed()
	signed := append(b, key.sign(b)...)
	if _, err := ReadTerm(signed); err != nil || !time.Unix(0, t.IssuedAt.UnixNano()).Equal(t.IssuedAt) {
		return nil, fmt.Errorf("sign term %d of %q: %w", t.Number, t.Site, ErrMalformed)
	}
	return signed, nil
}

func (t *Term) signed() []byte {
	b := make([]byte, 0, maxTerm)
	b = append(b, termMagic...)
	for _, name := range []string{t.Fabric, t.Site, t.By} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
		b = append(b, name...)
	}
	b = binary.BigEndian.AppendUint64(b, t.Number)
	b = binary.BigEndian.AppendUint64(b, uint64(t.IssuedAt.UnixNano()))
	if t.Dashboard {
		return append(b, 1)
	}
	return append(b, 0)
}

// ReadTerm reads a statement without believing it: it says whose key must have
// signed it. It returns [ErrMalformed].
func ReadTerm(signed []byte) (*Term, error) {
	if len(signed) < termFixed || len(signed) > maxTerm || !bytes.HasPrefix(signed, []byte(termMagic)) {
		return nil, ErrMalformed
	}
	in := reader{rest: signed[len(termMagic) : len(signed)-ed25519.SignatureSize]}
	t := Term{
		Fabric: string(in.take(int(in.uint16()))),
		Site:   string(in.take(int(in.uint16()))),
		By:     string(in.take(int(in.uint16()))),
		Number: in.uint64(),
	}
	t.IssuedAt = time.Unix(0, int64(in.uint64())).UTC()
	role := in.take(1)
	if in.short || len(in.rest) > 0 || role[0] > 1 || t.Number == 0 ||
		!isLabel(t.Fabric) || !isLabel(t.Site) || !isLabel(t.By) {
		return nil, ErrMalformed
	}
	t.Dashboard = role[0] == 1
	return &t, nil
}

// VerifyTerm reads a statement if it is signed by key. It returns
// [ErrMalformed] or [ErrSignature]; whether the signer may say so, and whether
// it is news, is for the caller to decide.
func VerifyTerm(signed []byte, key ed25519.PublicKey) (*Term, error) {
	t, err := ReadTerm(signed)
	if err != nil {
		return nil, err
	}
	message := signed[:len(signed)-ed25519.SignatureSize]
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, message, signed[len(message):]) {
		return nil, ErrSignature
	}
	return t, nil
}

// After reports whether a statement is newer than another: by number, then by
// the name of the site, so that two sites that were promoted apart from each
// other agree on one of them when they meet.
func (t *Term) After(other *Term) bool {
	if t.Number != other.Number {
		return t.Number > other.Number
	}
	return t.Site > other.Site
}
