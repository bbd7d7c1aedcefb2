package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

// Hash is a SHA-256 of the audit chain; it is hexadecimal in JSON.
type Hash [sha256.Size]byte

// String is the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(h)) {
		return fmt.Errorf("hash has %d digits, not %d", len(text), hex.EncodedLen(len(h)))
	}
	_, err := hex.Decode(h[:], text)
	return err
}

// AuditHead is the end of the audit chain. A copy that is kept elsewhere (at
// other sites, in a syslog) makes it evident when records were cut off the end
// here together with both heads: see VerifyAudit.
type AuditHead struct {
	Seq  uint64 `json:"seq"` // number of the last record, 0 without any
	Hash Hash   `json:"hash"`
}

// head is the state of the whole ledger after a commit.
type head struct {
	commit uint64 // number of the commit
	keys   uint64 // live keys
	sum    sum    // of all live keys' sums, modulo 2^256
	audit  AuditHead
}

const (
	headMagic = "PLH1"
	headSize  = 4 + 8 + 8 + 32 + 8 + 32 + 32
	// slotGap puts the two slots on different pages and sectors.
	slotGap = 4096
)

func (h head) encode() []byte {
	b := make([]byte, 0, headSize)
	b = append(b, headMagic...)
	b = binary.BigEndian.AppendUint64(b, h.commit)
	b = binary.BigEndian.AppendUint64(b, h.keys)
	b = append(b, h.sum[:]...)
	b = binary.BigEndian.AppendUint64(b, h.audit.Seq)
	b = append(b, h.audit.Hash[:]...)
	check := sha256.Sum256(b)
	return append(b, check[:]...)
}

func decodeHead(b []byte) (head, error) {
	var h head
	if len(b) != headSize || string(b[:4]) != headMagic || sha256.Sum256(b[:headSize-32]) != [32]byte(b[headSize-32:]) {
		return h, errors.New("head does not match its checksum")
	}
	h.commit = binary.BigEndian.Uint64(b[4:])
	h.keys = binary.BigEndian.Uint64(b[12:])
	copy(h.sum[:], b[20:])
	h.audit.Seq = binary.BigEndian.Uint64(b[52:])
	copy(h.audit.Hash[:], b[60:])
	return h, nil
}

// add and sub make the sum over all keys independent of their order.
func (s *sum) add(o sum) {
	var carry uint16
	for i := len(s) - 1; i >= 0; i-- {
		carry += uint16(s[i]) + uint16(o[i])
		s[i] = byte(carry)
		carry >>= 8
	}
}

func (s *sum) sub(o sum) {
	var borrow int16
	for i := len(s) - 1; i >= 0; i-- {
		d := int16(s[i]) - int16(o[i]) - borrow
		borrow = 0
		if d < 0 {
			d += 256
			borrow = 1
		}
		s[i] = byte(d)
	}
}

// headFile is the second copy of the head, outside of the database. Slots take
// turns, so that a torn write leaves the one before.
type headFile struct{ f *os.File }

func openHeadFile(name string) (headFile, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	return headFile{f}, err
}

// read is the newest head in the file; false when no slot holds one, and torn
// when a slot holds something else than a head.
func (f headFile) read() (newest head, ok, torn bool, err error) {
	for slot := range int64(2) {
		b := make([]byte, headSize)
		n, err := f.f.ReadAt(b, slot*slotGap)
		if err != nil && !errors.Is(err, io.EOF) {
			return newest, false, false, fmt.Errorf("read the head: %w", err)
		}
		h, err := decodeHead(b[:n])
		if err != nil {
			for _, c := range b[:n] {
				torn = torn || c != 0
			}
			continue
		}
		if !ok || h.commit > newest.commit {
			newest, ok = h, true
		}
	}
	return newest, ok, torn, nil
}

func (f headFile) write(h head) error {
	if _, err := f.f.WriteAt(h.encode(), int64(h.commit%2)*slotGap); err != nil {
		return fmt.Errorf("write the head: %w", err)
	}
	if err := f.f.Sync(); err != nil {
		return fmt.Errorf("sync the head: %w", err)
	}
	return nil
}
