package store

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// space guards the disk. Badger writes through mappings of sparse files: on a
// full disk that is a fault that nothing can recover from, so writes stop
// before it is full.
type space struct {
	dir     string
	reserve uint64
	free    func(dir string) (free, size uint64, err error)
	full    atomic.Bool
	refused atomic.Uint64
}

func newSpace(dir string, o *Options) (*space, error) {
	s := &space{dir: dir, reserve: o.Reserve, free: o.Free}
	if s.free == nil {
		s.free = statfs
	}
	if s.reserve == 0 {
		_, size, err := s.free(dir)
		if err != nil {
			return nil, fmt.Errorf("free space: %w", err)
		}
		s.reserve = reserveOf(size, o.Dashboard)
	}
	return s, nil
}

// reserveOf is twice what Badger may map at once (memtables and their flushed
// tables, and the value log), and a tenth of the disk up to 1 GiB.
func reserveOf(size uint64, dashboard bool) uint64 {
	o := badgerOptions("", dashboard, nil)
	return 2*uint64(2*o.ValueLogFileSize+2*o.MemTableSize) + min(size/10, 1<<30)
}

// need is what opening takes: a memtable and a value log, mapped.
func need(dashboard bool) uint64 {
	o := badgerOptions("", dashboard, nil)
	return uint64(2*o.ValueLogFileSize + 4*o.MemTableSize)
}

func statfs(dir string) (free, size uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("statfs: %w", err)
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}

// check is nil if there is room to write.
func (s *space) check() error {
	free, _, err := s.free(s.dir)
	if err != nil {
		return fmt.Errorf("free space: %w", err)
	}
	if free < s.reserve {
		s.full.Store(true)
		s.refused.Add(1)
		return fmt.Errorf("%w: %d MiB free of %d MiB reserved", ErrNoSpace, free>>20, s.reserve>>20)
	}
	s.full.Store(false)
	return nil
}

// room reports whether so many bytes are free.
func (s *space) room(bytes uint64) bool {
	free, _, err := s.free(s.dir)
	return err == nil && free >= bytes
}

func blocks(st os.FileInfo) int64 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return sys.Blocks
	}
	return 0
}

// used is how many bytes of the disk the files under dir take.
func used(dir string) uint64 {
	total := uint64(0)
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if st, err := d.Info(); err == nil {
			total += uint64(blocks(st)) * 512
		}
		return nil
	})
	return total
}
