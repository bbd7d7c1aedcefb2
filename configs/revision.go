package configs

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Errors of revisions; errors.Is finds them in what [Verify] and [Store] return.
var (
	ErrMalformed = errors.New("malformed revision")
	ErrSignature = errors.New("revision is not signed by the root key or its controller")
	ErrFabric    = errors.New("revision is for another fabric")
	ErrSite      = errors.New("revision is for another site")
	ErrStale     = errors.New("revision is not newer than the current one")
	ErrForked    = errors.New("revision does not follow the current one")
)

// Revision is one configuration of one site, numbered and signed. It is
// immutable once signed or verified; Body is shared, not copied.
type Revision struct {
	Fabric string
	Site   string
	// Epoch is the term of whoever issued it: it rises when another dashboard
	// takes over, which fences the old one. Number rises with every revision.
	Epoch, Number uint64
	IssuedAt      time.Time // UTC
	// PrevHash is the Hash of the revision that this one was made from, zero
	// for the first. The body is complete all the same.
	PrevHash [sha256.Size]byte
	Body     []byte // the JSON of [Config.Canonical]
	// Controller is who signed it, nil if the root did. [Verify] sets it; it is
	// not part of the encoding.
	Controller *Controller
}

// The bytes that travel, all integers big-endian:
//
//	"patronus-revision-v1\0"            what is signed
//	u16 length, fabric                      |
//	u16 length, site                        |
//	u64 epoch, u64 number                   |
//	i64 issued at, ns since 1970            |
//	32 bytes hash of the previous one       |
//	u32 length, body                        v
//	64 bytes Ed25519 signature (RFC 8032) over all of the above
//
// The leading words separate these signatures from any other use of the key.
// Lengths make the reading unambiguous, and what is verified are the bytes
// received, never an encoding of what they were decoded to.
const (
	revisionMagic = "patronus-revision-v1\x00"
	maxRevision   = 16 << 20
	fixedPart     = len(revisionMagic) + 2 + 2 + 8 + 8 + 8 + sha256.Size + 4 + ed25519.SignatureSize
)

// NewRevision makes a revision of a checked configuration for its own site.
// prev is the hash of the revision before, zero for the first.
func NewRevision(c *Config, epoch, number uint64, at time.Time, prev [sha256.Size]byte) (*Revision, error) {
	body, err := c.Canonical()
	if err != nil {
		return nil, err
	}
	return &Revision{
		Fabric: c.Fabric, Site: c.Site, Epoch: epoch, Number: number,
		IssuedAt: at.UTC().Round(0), PrevHash: prev, Body: body,
	}, nil
}

// Compare orders revisions by epoch, then number.
func (r *Revision) Compare(other *Revision) int {
	return cmp.Or(cmp.Compare(r.Epoch, other.Epoch), cmp.Compare(r.Number, other.Number))
}

// Hash names the revision: SHA-256 of the signed bytes without the signature.
func (r *Revision) Hash() [sha256.Size]byte { return sha256.Sum256(r.signed()) }

// Config decodes and checks the body, and that it is for the same site of the
// same fabric as the revision says.
func (r *Revision) Config() (*Config, error) {
	c, err := Decode(r.Body)
	if err != nil {
		return nil, fmt.Errorf("revision %d: %w", r.Number, err)
	}
	switch {
	case c.Fabric != r.Fabric:
		return nil, fmt.Errorf("revision %d: body: %w", r.Number, ErrFabric)
	case c.Site != r.Site:
		return nil, fmt.Errorf("revision %d: body: %w", r.Number, ErrSite)
	}
	return c, nil
}

// signed is the encoding without the signature.
func (r *Revision) signed() []byte {
	b := make([]byte, 0, fixedPart+len(r.Fabric)+len(r.Site)+len(r.Body))
	b = append(b, revisionMagic...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Fabric)))
	b = append(b, r.Fabric...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Site)))
	b = append(b, r.Site...)
	b = binary.BigEndian.AppendUint64(b, r.Epoch)
	b = binary.BigEndian.AppendUint64(b, r.Number)
	b = binary.BigEndian.AppendUint64(b, uint64(r.IssuedAt.UnixNano()))
	b = append(b, r.PrevHash[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Body)))
	return append(b, r.Body...)
}

// Sign returns the bytes that travel and are kept. It refuses a revision that
// [Verify] would not read.
func (r *Revision) Sign(key *RootKey) ([]byte, error) {
	timeFits := time.Unix(0, r.IssuedAt.UnixNano()).Equal(r.IssuedAt) // the years 1678 to 2262
	if !isLabel(r.Fabric) || !isLabel(r.Site) || r.Number == 0 || !timeFits || len(r.Body) > maxRevision-fixedPart-2*63 {
		return nil, fmt.Errorf("sign revision %d of %q: %w", r.Number, r.Site, ErrMalformed)
	}
	b := r.signed()
	return append(b, key.sign(b)...), nil
}

// Verify reads signed bytes if they are signed by root, or by a controller that
// root certified for the revision's epoch. It returns [ErrMalformed],
// [ErrSignature], [ErrCertificate], [ErrTerm] or [ErrFabric]; whose revision it
// is, and whether it is newer, is for the caller to check, as [Store] does. The
// revision's Body borrows from signed.
func Verify(signed []byte, root ed25519.PublicKey) (*Revision, error) {
	if bytes.HasPrefix(signed, []byte(delegatedMagic)) {
		return verifyDelegated(signed, root)
	}
	return verifyRevision(signed, root)
}

// verifyRevision reads a revision that is signed by key itself.
func verifyRevision(signed []byte, key ed25519.PublicKey) (*Revision, error) {
	if len(signed) < fixedPart || len(signed) > maxRevision || !bytes.HasPrefix(signed, []byte(revisionMagic)) {
		return nil, ErrMalformed
	}
	if len(key) != ed25519.PublicKeySize {
		return nil, ErrSignature // a key that cannot have signed anything
	}
	message := signed[:len(signed)-ed25519.SignatureSize]
	if !ed25519.Verify(key, message, signed[len(message):]) {
		return nil, ErrSignature
	}
	in := reader{rest: message[len(revisionMagic):]}
	r := Revision{
		Fabric: string(in.take(int(in.uint16()))),
		Site:   string(in.take(int(in.uint16()))),
		Epoch:  in.uint64(),
		Number: in.uint64(),
	}
	r.IssuedAt = time.Unix(0, int64(in.uint64())).UTC()
	copy(r.PrevHash[:], in.take(len(r.PrevHash)))
	r.Body = in.take(int(in.uint32()))
	if in.short || len(in.rest) > 0 || !isLabel(r.Fabric) || !isLabel(r.Site) || r.Number == 0 {
		return nil, ErrMalformed
	}
	return &r, nil
}

// reader takes fields off a message; past its end it returns zeros and sets short.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.rest) {
		r.short, r.rest = true, nil
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}
