package configs

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Errors of controllers' certificates, found by errors.Is in what
// [VerifyController] and [Verify] return.
var (
	ErrCertificate = errors.New("controller is not certified by the root key")
	ErrTerm        = errors.New("revision is of another term than its controller's certificate")
)

// Controller is who may sign revisions besides the root itself: an appliance
// that was promoted, for one term. The root signs its certificate; the
// controller's key is made where it is used and never leaves it.
type Controller struct {
	Fabric string
	// Site is where the controller runs. It is told to people and decides nothing.
	Site string
	// Term is the Epoch of all that the controller signs. A site that has seen a
	// newer one refuses it, which fences a dashboard that was replaced.
	Term     uint64
	Key      ed25519.PublicKey
	IssuedAt time.Time // UTC
}

// The certificate, all integers big-endian:
//
//	"patronus-controller-v1\0"
//	u16 length, fabric
//	u16 length, site
//	u64 term
//	i64 issued at, ns since 1970
//	32 bytes public key of the controller
//	64 bytes Ed25519 signature of the root over all of the above
//
// and a revision that a controller signed, as it travels:
//
//	"patronus-delegated-v1\0"
//	u16 length, certificate
//	the revision, signed by the controller's key
const (
	controllerMagic = "patronus-controller-v1\x00"
	delegatedMagic  = "patronus-delegated-v1\x00"
	maxCertificate  = 512
)

// Certify signs the certificate of a controller. It refuses one that
// [VerifyController] would not read.
func (k *RootKey) Certify(c Controller) ([]byte, error) {
	if !isLabel(c.Fabric) || !isLabel(c.Site) || c.Term == 0 || len(c.Key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("certify a controller at %q: %w", c.Site, ErrMalformed)
	}
	b := []byte(controllerMagic)
	b = binary.BigEndian.AppendUint16(b, uint16(len(c.Fabric)))
	b = append(b, c.Fabric...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(c.Site)))
	b = append(b, c.Site...)
	b = binary.BigEndian.AppendUint64(b, c.Term)
	b = binary.BigEndian.AppendUint64(b, uint64(c.IssuedAt.UnixNano()))
	b = append(b, c.Key...)
	return append(b, k.sign(b)...), nil
}

// VerifyController reads a certificate if root signed it. It returns
// [ErrMalformed] or [ErrCertificate].
func VerifyController(certificate []byte, root ed25519.PublicKey) (*Controller, error) {
	if len(certificate) < len(controllerMagic)+ed25519.SignatureSize || len(certificate) > maxCertificate ||
		!bytes.HasPrefix(certificate, []byte(controllerMagic)) {
		return nil, ErrMalformed
	}
	message := certificate[:len(certificate)-ed25519.SignatureSize]
	if len(root) != ed25519.PublicKeySize || !ed25519.Verify(root, message, certificate[len(message):]) {
		return nil, ErrCertificate
	}
	in := reader{rest: message[len(controllerMagic):]}
	c := Controller{
		Fabric: string(in.take(int(in.uint16()))),
		Site:   string(in.take(int(in.uint16()))),
		Term:   in.uint64(),
	}
	c.IssuedAt = time.Unix(0, int64(in.uint64())).UTC()
	c.Key = bytes.Clone(in.take(ed25519.PublicKeySize))
	if in.short || len(in.rest) > 0 || !isLabel(c.Fabric) || !isLabel(c.Site) || c.Term == 0 {
		return nil, ErrMalformed
	}
	return &c, nil
}

// SignDelegated is [Revision.Sign] by a controller: key is the one that its
// certificate names.
func (r *Revision) SignDelegated(key *RootKey, certificate []byte) ([]byte, error) {
	if len(certificate) > maxCertificate {
		return nil, fmt.Errorf("sign revision %d of %q: %w", r.Number, r.Site, ErrMalformed)
	}
	signed, err := r.Sign(key)
	if err != nil {
		return nil, err
	}
	b := []byte(delegatedMagic)
	b = binary.BigEndian.AppendUint16(b, uint16(len(certificate)))
	b = append(b, certificate...)
	return append(b, signed...), nil
}

// verifyDelegated reads a revision that a controller signed.
func verifyDelegated(signed []byte, root ed25519.PublicKey) (*Revision, error) {
	in := reader{rest: signed[len(delegatedMagic):]}
	certificate := in.take(int(in.uint16()))
	if in.short {
		return nil, ErrMalformed
	}
	c, err := VerifyController(certificate, root)
	if err != nil {
		return nil, err
	}
	r, err := verifyRevision(in.rest, c.Key)
	switch {
	case err != nil:
		return nil, err
	case r.Fabric != c.Fabric:
		return nil, fmt.Errorf("%w: %s", ErrFabric, r.Fabric)
	case r.Epoch != c.Term:
		return nil, ErrTerm
	}
	r.Controller = c
	return r, nil
}
