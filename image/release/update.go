package release

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Errors of an update file, found by errors.Is.
var (
	ErrFormat   = errors.New("not an update file of Patronus")
	ErrUnsigned = errors.New("signature is of no key that this appliance trusts")
	ErrArch     = errors.New("image is for another machine")
	ErrOlder    = errors.New("image is not newer")
	ErrDigest   = errors.New("image is damaged: its checksum differs from the signed one")
)

const (
	magic         = "patronus-image-v1\n"
	signedContext = "patronus-image-manifest-v1\x00"
	maxManifest   = 4096
	// MaxPayload is the largest image that is taken, bytes: it must fit into
	// half of the EFI partition.
	MaxPayload = 120 << 20
)

// Info says which image this is. It is inside the image too, so that what runs
// knows itself.
type Info struct {
	Arch    string `json:"arch"`    // as GOARCH
	Version string `json:"version"` // for people; decides nothing
	// Seq rises with every release and never falls on an appliance (anti-rollback).
	Seq uint64 `json:"seq"`
}

// Manifest is the signed head of an update file.
type Manifest struct {
	Info
	Size   int64  `json:"size"`   // of the payload, bytes
	SHA256 string `json:"sha256"` // of the payload, hex
}

// Check refuses an image for another machine (ErrArch) and one that is not
// newer than what runs or older than the newest that ever ran well (ErrOlder).
func (m *Manifest) Check(running Info, floor uint64) error {
	switch {
	case m.Arch != running.Arch:
		return fmt.Errorf("%w: it is for %s, this is %s", ErrArch, m.Arch, running.Arch)
	case m.Seq == running.Seq:
		return fmt.Errorf("%w: %s (%d) is running already", ErrOlder, m.Version, m.Seq)
	case m.Seq < running.Seq:
		return fmt.Errorf("%w: it is %d, %d is running", ErrOlder, m.Seq, running.Seq)
	case m.Seq < floor:
		return fmt.Errorf("%w: it is %d, and %d ran here before", ErrOlder, m.Seq, floor)
	}
	return nil
}

// Write writes an update file.
func Write(w io.Writer, k *Key, info Info, payload []byte) error {
	sum := sha256.Sum256(payload)
	text, err := json.Marshal(Manifest{Info: info, Size: int64(len(payload)), SHA256: hex.EncodeToString(sum[:])})
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if len(text) > maxManifest || len(payload) > MaxPayload {
		return fmt.Errorf("update file: image of %d MiB is larger than %d MiB", len(payload)>>20, MaxPayload>>20)
	}
	head := append([]byte(magic), binary.BigEndian.AppendUint32(nil, uint32(len(text)))...)
	head = append(head, text...)
	head = append(head, k.sign(signedContext, text)...)
	if _, err := w.Write(head); err != nil {
		return fmt.Errorf("update file: %w", err)
	}
	if _, err := w.Write(payload); err != nil {
		return fmt.Errorf("update file: %w", err)
	}
	return nil
}

// Open reads the head of an update file and verifies it. The payload that it
// returns ends with io.EOF only if every byte was as signed; otherwise with
// ErrDigest. So: keep nothing that was read before EOF.
func Open(r io.Reader, trusted Keys) (*Manifest, io.Reader, error) {
	head := make([]byte, len(magic)+4)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, nil, formatError(err)
	}
	size := binary.BigEndian.Uint32(head[len(magic):])
	if !bytes.HasPrefix(head, []byte(magic)) || size > maxManifest {
		return nil, nil, ErrFormat
	}
	text := make([]byte, int(size)+ed25519.SignatureSize)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, nil, formatError(err)
	}
	text, signature := text[:size], text[size:]
	if !trusted.verify(signedContext, text, signature) {
		return nil, nil, ErrUnsigned
	}
	var m Manifest
	dec := json.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&m); err != nil {
		return nil, nil, fmt.Errorf("%w: manifest: %w", ErrFormat, err)
	}
	sum, err := hex.DecodeString(m.SHA256)
	if err != nil || len(sum) != sha256.Size || m.Size <= 0 || m.Size > MaxPayload || m.Seq == 0 {
		return nil, nil, fmt.Errorf("%w: manifest", ErrFormat)
	}
	return &m, &payload{r: r, left: m.Size, want: sum, hash: sha256.New()}, nil
}

func formatError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends too early", ErrFormat)
	}
	return err
}

type payload struct {
	r    io.Reader
	left int64
	want []byte
	hash hash.Hash
}

func (p *payload) Read(b []byte) (int, error) {
	if p.left == 0 {
		if subtle.ConstantTimeCompare(p.hash.Sum(nil), p.want) != 1 {
			return 0, ErrDigest
		}
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), p.left)]
	n, err := p.r.Read(b)
	p.hash.Write(b[:n])
	p.left -= int64(n)
	if p.left > 0 && errors.Is(err, io.EOF) {
		return n, fmt.Errorf("%w: %d bytes are missing", ErrDigest, p.left)
	}
	if p.left == 0 || errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// Verify reads a payload and checks that it is the one that was signed.
func (m *Manifest) Verify(r io.Reader) error {
	want, err := hex.DecodeString(m.SHA256)
	if err != nil {
		return fmt.Errorf("%w: manifest", ErrFormat)
	}
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(r, m.Size+1))
	if err != nil {
		return err
	}
	if n != m.Size || subtle.ConstantTimeCompare(h.Sum(nil), want) != 1 {
		return ErrDigest
	}
	return nil
}
