package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"golang.org/x/sys/unix"
)

// Sizes for a machine with 512 MB.
const (
	memTableSize = 16 << 20
	valueLogSize = 1 << 20 // badger's least: nothing of ours goes there
)

// mapped is what badger may have to write before anything is freed: it maps
// logs at twice their size.
func (o Options) mapped() int64 { return 2*o.memTable + 2*valueLogSize }

func (o Options) withDefaults() Options {
	if o.free == nil {
		o.free = freeSpace
	}
	if o.memTable == 0 {
		o.memTable = memTableSize
	}
	if o.scrub == 0 {
		o.scrub = scrubEvery
	}
	if o.backup == 0 {
		o.backup = backupEvery
	}
	return o
}

func freeSpace(dir string) (free, total int64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, int64(s.Blocks) * s.Bsize, nil
}

// enough is ErrFull when less than the reserve is free.
func enough(dir string, o Options) error {
	free, total, err := o.free(dir)
	if err != nil {
		return err
	}
	reserve := o.Reserve
	if reserve == 0 {
		reserve = max(o.mapped(), min(2*o.mapped(), total/10))
	}
	if free < reserve {
		return fmt.Errorf("%s: %w: %d MB free, %d MB are kept free", dir, ErrFull, free>>20, reserve>>20)
	}
	return nil
}

// maxSealed is the greatest envelope, in bytes: what is longer would go to the
// value log, and badger serves that without looking at its checksum.
func (o Options) maxSealed() int { return int(min(1<<20, 15*o.memTable/100)) - 2048 }

// ballastSize is what opening or closing may write on a disk that somebody else
// filled: a memtable and its table.
func (o Options) ballastSize() int64 { return 2*o.memTable + 4<<20 }

// layBallast keeps space for that, if there is enough beyond the reserve.
func layBallast(dir string, o Options) {
	name := filepath.Join(dir, ballastName)
	free, _, err := o.free(dir)
	if err != nil || free < o.Reserve+3*o.ballastSize() {
		return
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return // it is there
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, o.ballastSize())
	if errors.Join(err, f.Close()) != nil {
		_ = os.Remove(name) // a file system that cannot: the reserve must do
	}
}

// dropBallast gives it back if the disk is full, and reports whether a memtable
// can be written now.
func dropBallast(dir string, o Options) bool {
	if enough(dir, o) == nil {
		return true
	}
	if err := os.Remove(filepath.Join(dir, ballastName)); err != nil {
		return false
	}
	free, _, err := o.free(dir)
	return err == nil && free >= o.ballastSize()/2
}

// database are badger's options.
func (o Options) database(dir string) badger.Options {
	return badger.DefaultOptions(dir).
		WithSyncWrites(true).
		WithLogger(nil).
		WithMetricsEnabled(false).
		WithMemTableSize(o.memTable).
		WithValueLogFileSize(valueLogSize).
		WithNumMemtables(2).
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(4).
		WithNumCompactors(2).
		WithNumGoroutines(2).
		WithBaseTableSize(2 << 20).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithCompression(options.None). // values are compressed already
		WithChecksumVerificationMode(options.OnTableAndBlockRead).
		WithVerifyValueChecksum(true).
		WithNumVersionsToKeep(1).
		WithValueThreshold(int64(o.maxSealed()) + 1024)
}

// lockFile is the claim of one process on a ledger; the kernel drops it when
// the process ends, however it ends.
type lockFile struct{ f *os.File }

func claim(name string) (lockFile, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return lockFile{}, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return lockFile{}, fmt.Errorf("%s: %w", name, ErrLocked)
		}
		return lockFile{}, fmt.Errorf("lock %s: %w", name, err)
	}
	return lockFile{f}, nil
}

func (l lockFile) release() error { return l.f.Close() }
