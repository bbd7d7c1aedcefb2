package enroll

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"patronus/configs"
)

// ErrProof is for a claim whose maker does not hold the keys that it names.
var ErrProof = errors.New("claim does not prove its keys")

// Bounds of a claim.
const (
	maxClaim   = 32 << 10 // bytes
	maxUplinks = 8
	maxPorts   = 16
	nonceSize  = 32
)

// Claim is what an appliance says of itself. Nothing in it says who it may be:
// that is the token's.
type Claim struct {
	Secret []byte `json:"secret"` // the token's
	Fabric string `json:"fabric"`
	Site   string `json:"site"`
	// Identity is the public half of the key that the appliance signs with.
	Identity ed25519.PublicKey `json:"identity"`
	DataDir  string            `json:"data_dir"`
	Uplinks  []Uplink          `json:"uplinks"`
	// LAN are the ports that the appliance was told of where it stands; if there
	// are none, those count that the dashboard has for the site.
	LAN     []configs.LANPort `json:"lan,omitempty"`
	Version string            `json:"version,omitempty"`
}

// Uplink is an uplink as the appliance has it.
type Uplink struct {
	Name           string      `json:"name"`
	PublicKey      configs.Key `json:"public_key"`
	PrivateKeyFile string      `json:"private_key_file"` // its name, on the appliance
	Interface      string      `json:"interface,omitempty"`
	ListenPort     uint16      `json:"listen_port,omitempty"`
	// Endpoints are addresses of the appliance that others may call; they count
	// where the dashboard has none.
	Endpoints []netip.AddrPort `json:"endpoints,omitempty"`
}

// Challenge is what a claim must be made for: it is fresh, and good once.
type Challenge struct {
	ID    string `json:"id"`
	Nonce []byte `json:"nonce"`
	// Key is an X25519 key (RFC 7748) of this challenge alone: who has the
	// private half of an uplink's key shares a secret with it.
	Key []byte `json:"key"`
	// Uplinks are those that the dashboard has planned for the site: the claim
	// brings a key for each. If there are none, the appliance finds its own.
	Uplinks []Planned `json:"uplinks,omitempty"`
}

// Planned is an uplink that a site will have.
type Planned struct {
	Name       string `json:"name"`
	Interface  string `json:"interface,omitempty"`
	ListenPort uint16 `json:"listen_port,omitempty"`
}

// Hello asks for a challenge. The hash names the token and gives nothing of it
// away.
type Hello struct {
	Token []byte `json:"token"` // [Token.Hash]
}

// Secret is the dashboard's half of a challenge.
type Secret struct {
	nonce []byte
	key   *ecdh.PrivateKey
}

// NewChallenge makes a challenge.
func NewChallenge() (Challenge, *Secret) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // the system's source never fails: it ends the program instead
	}
	nonce := make([]byte, nonceSize)
	_, _ = rand.Read(nonce)
	return Challenge{ID: rand.Text(), Nonce: nonce, Key: key.PublicKey().Bytes()}, &Secret{nonce: nonce, key: key}
}

// Envelope is a claim as it travels: the bytes that are proved, and the proofs.
type Envelope struct {
	Challenge string `json:"challenge"`
	Claim     []byte `json:"claim"` // JSON of a Claim; verified as received
	// Signature is the identity's (Ed25519, RFC 8032), Proofs are those of the
	// uplinks' keys, in their order (HMAC-SHA-256, RFC 2104).
	Signature []byte   `json:"signature"`
	Proofs    [][]byte `json:"proofs"`
}

// transcript is what is signed and authenticated: everything of the exchange.
// Its words separate these proofs from any other use of the keys.
func transcript(nonce, claim []byte) []byte {
	b := []byte("patronus-claim-v1\x00")
	b = append(b, nonce...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(claim)))
	return append(b, claim...)
}

// proof authenticates a transcript by the secret that an uplink's key shares
// with the challenge's, bound to the place of the uplink in the claim.
func proof(shared, message []byte, place int) []byte {
	key := sha256.Sum256(append([]byte("patronus-claim-key-v1\x00"), shared...))
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte{byte(place)})
	mac.Write(message)
	return mac.Sum(nil)
}

// NewEnvelope proves a claim by the identity's key and those of the uplinks, in
// their order.
func NewEnvelope(ch Challenge, c *Claim, identity *configs.RootKey, keys []configs.PrivateKey) (*Envelope, error) {
	if len(ch.Nonce) != nonceSize || len(keys) != len(c.Uplinks) {
		return nil, fmt.Errorf("make a claim: %w", ErrProof)
	}
	far, err := ecdh.X25519().NewPublicKey(ch.Key)
	if err != nil {
		return nil, fmt.Errorf("make a claim: %w", err)
	}
	text, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("make a claim: %w", err)
	}
	message := transcript(ch.Nonce, text)
	e := &Envelope{Challenge: ch.ID, Claim: text, Signature: identity.Prove(message)}
	for i, k := range keys {
		secret := k.Bytes()
		near, err := ecdh.X25519().NewPrivateKey(secret[:])
		if err != nil {
			return nil, fmt.Errorf("make a claim: %w", err)
		}
		shared, err := near.ECDH(far)
		if err != nil {
			return nil, fmt.Errorf("make a claim: %w", err)
		}
		e.Proofs = append(e.Proofs, proof(shared, message, i))
	}
	return e, nil
}

// Open verifies an envelope against the challenge that it was made for, and
// returns what its maker has proved to hold the keys of. It returns [ErrProof].
func (e *Envelope) Open(s *Secret) (*Claim, error) {
	if len(e.Claim) > maxClaim {
		return nil, fmt.Errorf("claim of %d bytes: %w", len(e.Claim), ErrProof)
	}
	dec := json.NewDecoder(bytes.NewReader(e.Claim))
	dec.DisallowUnknownFields()
	var c Claim
	if err := dec.Decode(&c); err != nil {
		return nil, fmt.Errorf("unreadable claim: %w", ErrProof)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("unreadable claim: %w", ErrProof)
	}
	switch {
	case len(c.Secret) != secretSize || len(c.Identity) != ed25519.PublicKeySize:
		return nil, fmt.Errorf("claim without a secret or identity: %w", ErrProof)
	case len(c.Uplinks) == 0 || len(c.Uplinks) > maxUplinks || len(c.LAN) > maxPorts:
		return nil, fmt.Errorf("a claim has 1 to %d uplinks, and at most %d LAN ports: %w", maxUplinks, maxPorts, ErrProof)
	case len(e.Proofs) != len(c.Uplinks):
		return nil, fmt.Errorf("claim with %d proofs for %d keys: %w", len(e.Proofs), len(c.Uplinks), ErrProof)
	}
	message := transcript(s.nonce, e.Claim)
	if !configs.VerifyProof(c.Identity, message, e.Signature) {
		return nil, fmt.Errorf("signature of the identity: %w", ErrProof)
	}
	for i := range c.Uplinks {
		near, err := ecdh.X25519().NewPublicKey(c.Uplinks[i].PublicKey[:])
		if err != nil {
			return nil, fmt.Errorf("key of uplink %d: %w", i, ErrProof)
		}
		shared, err := s.key.ECDH(near)
		if err != nil || !hmac.Equal(proof(shared, message, i), e.Proofs[i]) {
			return nil, fmt.Errorf("key of uplink %d: %w", i, ErrProof)
		}
	}
	return &c, nil
}

// Grant is the answer to a claim that has won.
type Grant struct {
	// Revision is the site's first, signed by the fabric's controller.
	Revision []byte `json:"revision"`
}
