package store

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// mark is what a store notes beside Badger, in a file of its own: what must be
// known before Badger is opened, or when it is damaged.
type mark struct {
	Format   int    `json:"format"`
	Node     string `json:"node"`
	Epoch    uint64 `json:"epoch"`
	Seq      uint64 `json:"seq"`      // newest feed entry that was durable
	LSN      uint64 `json:"lsn"`      // newest record of the log that was durable
	Sealed   uint64 `json:"sealed"`   // nothing up to here is in the log alone
	Clean    bool   `json:"clean"`    // closed, not killed
	Attempts int    `json:"attempts"` // to open that did not return
}

const (
	// Format is the version of what is on disk: see FORMAT.md.
	Format   = 1
	markFile = "mark"
)

// readMark reads the mark. Of a store without one, or with a damaged one, it is
// zero with the newest format: the base then says who it is.
func readMark(dir string) (mark, error) {
	none := mark{Format: Format}
	b, err := os.ReadFile(filepath.Join(dir, markFile))
	if errors.Is(err, fs.ErrNotExist) {
		none.Clean = true
		return none, nil
	}
	if err != nil {
		return none, fmt.Errorf("read mark: %w", err)
	}
	v, err := unseal([]byte(markFile), b)
	if err != nil {
		return none, nil
	}
	var m mark
	if err := json.Unmarshal(v, &m); err != nil {
		return none, nil
	}
	if m.Format > Format {
		return none, fmt.Errorf("%w: its format is %d, this program knows %d", ErrNewer, m.Format, Format)
	}
	return m, nil
}

func (m *mark) write(dir string) error {
	v, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("write mark: %w", err)
	}
	return replaceFile(filepath.Join(dir, markFile), seal([]byte(markFile), v))
}

// newIdentity is random.
func newIdentity() (node string, epoch uint64, err error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", 0, fmt.Errorf("new identity: %w", err)
	}
	return hex.EncodeToString(b[:8]), binary.BigEndian.Uint64(b[8:]) >> 1, nil
}

// migration brings a store from one format to the next.
type migration func(b *base) error

// migrations are indexed by the format that they start from. Format 1 is the
// first that was ever released, so there is nothing to migrate yet.
func migrations() map[int]migration { return map[int]migration{} }

// migrate applies what is missing. The format in the base is raised after each
// step, so that a step that was cut off is repeated: steps must stand that.
func migrate(b *base, steps map[int]migration, to int) error {
	format := to
	v, err := b.get(metaKey("format"))
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrDamaged):
	case err != nil:
		return fmt.Errorf("migrate: %w", err)
	case len(v) != 4:
		return fmt.Errorf("migrate: %w", damaged(metaKey("format")))
	default:
		format = int(binary.BigEndian.Uint32(v))
	}
	if format > to {
		return fmt.Errorf("%w: its format is %d, this program knows %d", ErrNewer, format, to)
	}
	for ; format < to; format++ {
		step, ok := steps[format]
		if !ok {
			return fmt.Errorf("migrate: no way from format %d to %d", format, format+1)
		}
		if err := step(b); err != nil {
			return fmt.Errorf("migrate from format %d: %w", format, err)
		}
		if err := setFormat(b, format+1); err != nil {
			return err
		}
	}
	return nil
}

func setFormat(b *base, format int) error {
	k := metaKey("format")
	if err := b.put([]entry{{key: k, value: seal(k, binary.BigEndian.AppendUint32(nil, uint32(format)))}}); err != nil {
		return fmt.Errorf("set format: %w", err)
	}
	return b.sync()
}
