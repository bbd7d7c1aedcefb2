package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"google.golang.org/protobuf/proto"
)

// inspector looks at Badger's files before Badger does: what it would assert,
// exit or panic on in goroutines of its own is moved to quarantine first.
// Files are read, never mapped.
type inspector struct {
	dir        string // Badger's
	quarantine string
	deep       bool // check each block of each table, not only indexes
	log        *slog.Logger
	now        time.Time
	moved      []string // what was moved, for the event
}

// lay moves a file or directory to quarantine.
func (in *inspector) lay(name string, why error) error {
	if err := os.MkdirAll(in.quarantine, 0o700); err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	base := filepath.Base(name)
	to := filepath.Join(in.quarantine, fmt.Sprintf("%d-%s", in.now.UnixMilli(), base))
	if err := os.Rename(name, to); err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	in.log.Error("quarantined a damaged file of the store", "path", base, "err", why)
	in.moved = append(in.moved, base)
	return nil
}

// run inspects all files.
func (in *inspector) run() error {
	files, err := os.ReadDir(in.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("inspect: %w", err)
	}
	good := map[uint64]bool{} // tables
	for _, f := range files {
		name := filepath.Join(in.dir, f.Name())
		var why error
		switch ext := filepath.Ext(f.Name()); {
		case f.Name() == "DISCARD", ext == ".vlog":
			// Nothing is ever kept in the value log: see maxValue.
			if err := os.Remove(name); err != nil {
				return fmt.Errorf("inspect: %w", err)
			}
		case f.Name() == "KEYREGISTRY":
			why = inspectRegistry(name)
		case ext == ".mem":
			why = inspectMemtable(name)
		case ext == ".sst":
			id, ok := tableID(f.Name())
			if !ok {
				why = errors.New("not the name of a table")
			} else if why = inspectTable(name, in.deep); why == nil {
				good[id] = true
			}
		}
		if why != nil {
			if err := in.lay(name, why); err != nil {
				return err
			}
		}
	}
	return in.manifest(good)
}

// inspectRegistry wants the registry of a store without encryption.
func inspectRegistry(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if len(b) != 28 || string(b[16:]) != "Hello Badger" {
		return errors.New("not a key registry")
	}
	return nil
}

// inspectMemtable wants a header without a key. Records have checksums of
// their own: Badger drops those from the first bad one on, which [Store] finds
// out by its mark.
func inspectMemtable(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	var header [20]byte
	if _, err := io.ReadFull(f, header[:]); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	if binary.BigEndian.Uint64(header[:]) != 0 {
		return errors.New("header names a key")
	}
	return nil
}

// tableID is the number in the name of a table.
func tableID(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, ".sst")
	if !ok || digits == "" || strings.Trim(digits, "0123456789") != "" || len(digits) > 18 {
		return 0, false
	}
	return table.ParseFileID(name)
}

// inspectTable checks the index of a table, and its blocks if deep.
//
//	blocks... index | length 4 | checksum | length 4
func inspectTable(name string, deep bool) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	end := st.Size()
	tail := func(limit int64) ([]byte, error) {
		var length [4]byte
		if end < 4 {
			return nil, errShort
		}
		if _, err := f.ReadAt(length[:], end-4); err != nil {
			return nil, err
		}
		n := int64(binary.BigEndian.Uint32(length[:]))
		end -= 4 + n
		if end < 0 || n > limit {
			return nil, errShort
		}
		b := make([]byte, n)
		_, err := f.ReadAt(b, end)
		return b, err
	}
	coded, err := tail(64)
	if err != nil {
		return fmt.Errorf("checksum: %w", err)
	}
	index, err := tail(st.Size())
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	if err := verify(index, coded); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	if !deep {
		return nil
	}
	return guarded(func() error {
		t := fb.GetRootAsTableIndex(index, 0)
		var at fb.BlockOffset
		var b []byte
		for i := range t.OffsetsLength() {
			t.Offsets(&at, i)
			b = slices.Grow(b[:0], int(at.Len()))[:at.Len()]
			if _, err := f.ReadAt(b, int64(at.Offset())); err != nil {
				return fmt.Errorf("block %d: %w", i, err)
			}
			if len(b) < 8 {
				return fmt.Errorf("block %d: %w", i, errShort)
			}
			n := int(binary.BigEndian.Uint32(b[len(b)-4:]))
			if n > len(b)-4 {
				return fmt.Errorf("block %d: %w", i, errShort)
			}
			if err := verify(b[:len(b)-4-n], b[len(b)-4-n:len(b)-4]); err != nil {
				return fmt.Errorf("block %d: %w", i, err)
			}
		}
		return nil
	})
}

// verify checks Badger's checksum of b.
func verify(b, coded []byte) error {
	var want pb.Checksum
	if err := proto.Unmarshal(coded, &want); err != nil {
		return err
	}
	if want.Algo != pb.Checksum_CRC32C && want.Algo != pb.Checksum_XXHash64 {
		return errors.New("unknown checksum")
	}
	return y.VerifyChecksum(b, &want)
}

const manifestFile = badger.ManifestFilename

// manifest makes Badger's list of tables fit the tables that are there and
// whole. Badger deletes tables that the list lacks, so that a list that was cut
// short would cost data: such tables are listed again, at level 0, where order
// does not matter. (Those that a crash left over hold what other tables hold.)
func (in *inspector) manifest(good map[uint64]bool) error {
	name := filepath.Join(in.dir, manifestFile)
	levels, whole, err := readManifest(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if len(good) == 0 {
			return nil
		}
	case err != nil:
		if err := in.lay(name, err); err != nil {
			return err
		}
	}
	same := err == nil && whole
	for id := range levels {
		if !good[id] {
			delete(levels, id)
			same = false
		}
	}
	for id := range good {
		if _, ok := levels[id]; !ok {
			levels[id] = 0
			same = false
		}
	}
	if same {
		return nil
	}
	return writeManifest(in.dir, levels)
}

// readManifest reads Badger's list: table -> level. whole is false if it ends
// in the middle of an entry.
func readManifest(name string) (levels map[uint64]uint32, whole bool, err error) {
	levels = map[uint64]uint32{}
	f, err := os.Open(name)
	if err != nil {
		return levels, false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return levels, false, err
	}
	var m badger.Manifest
	var end int64
	err = guarded(func() (err error) {
		m, end, err = badger.ReplayManifestFile(f, 0, badger.DefaultOptions("").WithLogger(nil))
		return err
	})
	if err != nil {
		return levels, false, err
	}
	for id, t := range m.Tables {
		if t.KeyID != 0 || t.Compression != options.None || t.Level > 6 {
			return map[uint64]uint32{}, false, errors.New("a table is not as this store writes them")
		}
		levels[id] = uint32(t.Level)
	}
	return levels, end == st.Size(), nil
}

// writeManifest writes a list with one change set:
//
//	"Bdgr" | 0 | 8 | length 4 | crc32c 4 | ManifestChangeSet
func writeManifest(dir string, levels map[uint64]uint32) error {
	var set pb.ManifestChangeSet
	for id, level := range levels {
		set.Changes = append(set.Changes, &pb.ManifestChange{
			Id: id, Op: pb.ManifestChange_CREATE, Level: level,
			EncryptionAlgo: pb.EncryptionAlgo_aes, Compression: uint32(options.None),
		})
	}
	body, err := proto.Marshal(&set)
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	b := append([]byte("Bdgr"), 0, 0, 0, 8)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(body, castagnoli()))
	return replaceFile(filepath.Join(dir, manifestFile), append(b, body...))
}

// replaceFile writes a file that is there wholly or not at all.
func replaceFile(name string, b []byte) error {
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return noSpace("write "+filepath.Base(name), err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return noSpace("write "+filepath.Base(name), err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(name), err)
	}
	return syncDir(filepath.Dir(name))
}

// copyAway puts a copy of a file that stays in use into quarantine.
func (in *inspector) copyAway(name string, b []byte) error {
	if err := os.MkdirAll(in.quarantine, 0o700); err != nil {
		return noSpace("quarantine", err)
	}
	in.log.Error("damaged records in the log of the store", "path", filepath.Base(name))
	to := filepath.Join(in.quarantine, fmt.Sprintf("%d-%s", in.now.UnixMilli(), filepath.Base(name)))
	if err := os.WriteFile(to, b, 0o600); err != nil {
		return noSpace("quarantine", err)
	}
	return nil
}
