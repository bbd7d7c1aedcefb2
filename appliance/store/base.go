package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"golang.org/x/sys/unix"
)

// base is the Badger of a store: sealed values under keys, and the change feed.
type base struct {
	db    *badger.DB
	dir   string
	space *space

	mu      sync.Mutex // of writers
	next    uint64     // sequence number of the next feed entry, guarded by mu
	head    atomic.Uint64
	damaged atomic.Uint64
	closed  atomic.Bool
}

// entry is one change of the base.
type entry struct {
	key, value []byte
	remove     bool
	feed       bool    // gets a sequence number
	old        uint64  // feed entry that this one stands for from now on, 0 if none
	seq        *uint64 // where the new sequence number goes, may be nil
}

// badgerOptions are Badger's for a profile. Values are compressed and carry
// checksums of their own (DESIGN.md), nothing goes to the value log, and the
// log beside Badger makes writes durable.
func badgerOptions(dir string, dashboard bool, log *slog.Logger) badger.Options {
	o := badger.DefaultOptions(dir)
	o.Logger = quiet{log}
	o.Compression = options.None
	o.BlockCacheSize, o.IndexCacheSize = 0, 0
	o.ChecksumVerificationMode = options.NoVerification
	o.MetricsEnabled = false
	o.DetectConflicts = false
	o.SyncWrites = false
	o.NumVersionsToKeep = 1
	o.ValueThreshold = maxValue
	o.ValueLogFileSize = 1 << 20
	o.NumGoroutines = 2
	o.NumCompactors = 2
	o.NumMemtables = 2
	o.NumLevelZeroTables = 2
	o.NumLevelZeroTablesStall = 8
	o.MemTableSize = 4 << 20
	o.BaseTableSize = 4 << 20
	o.BaseLevelSize = 16 << 20
	if dashboard {
		o.NumLevelZeroTables = 4
		o.NumLevelZeroTablesStall = 12
		o.MemTableSize = 8 << 20
		o.BaseTableSize = 8 << 20
		o.BaseLevelSize = 64 << 20
	}
	return o
}

// maxValue is the greatest value: above it, Badger would put it into its value
// log, whose read errors it swallows.
const maxValue = 512 << 10

// quiet passes what Badger warns of to the log, and nothing else.
type quiet struct{ log *slog.Logger }

func (q quiet) Errorf(f string, v ...any)   { q.log.Error("badger", "err", fmt.Sprintf(f, v...)) }
func (q quiet) Warningf(f string, v ...any) { q.log.Warn("badger", "err", fmt.Sprintf(f, v...)) }
func (quiet) Infof(string, ...any)          {}
func (quiet) Debugf(string, ...any)         {}

// openBase opens Badger in dir, which was inspected.
func openBase(dir string, o *Options, sp *space) (*base, error) {
	db, err := badger.Open(badgerOptions(dir, o.Dashboard, o.Log))
	if err != nil {
		return nil, fmt.Errorf("open badger: %w", err)
	}
	b := &base{db: db, dir: dir, space: sp}
	b.preallocate()
	last := uint64(0)
	err = b.scan([]byte{kindFeed}, nil, true, func(key, _ []byte) bool {
		if len(key) == 9 {
			last = binary.BigEndian.Uint64(key[1:])
		}
		return false
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	b.next = last + 1
	b.head.Store(last)
	return b, nil
}

// guarded runs f and turns a panic, or a fault on a mapped file that lost its
// pages, into an error: Badger asserts more than it checks.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: badger: %v", ErrDamaged, r)
		}
	}()
	return f()
}

// view passes the value of key to f: borrowed until f returns. A missing key is
// [ErrNotFound], a damaged value [ErrDamaged].
func (b *base) view(key []byte, f func(value []byte) error) error {
	return b.viewSealed(key, func(sealed []byte) error {
		value, err := unseal(key, sealed)
		if err != nil {
			return err
		}
		return f(value)
	})
}

// viewSealed is view without a check, which f must make.
func (b *base) viewSealed(key []byte, f func(sealed []byte) error) error {
	if b.closed.Load() {
		return ErrClosed
	}
	err := guarded(func() error {
		return b.db.View(func(txn *badger.Txn) error {
			item, err := txn.Get(key)
			if err != nil {
				return err
			}
			return item.Value(f)
		})
	})
	switch {
	case errors.Is(err, badger.ErrKeyNotFound):
		return ErrNotFound
	case errors.Is(err, ErrDamaged):
		b.damaged.Add(1)
	}
	return err
}

// copySealed appends the sealed value of key to dst.
func (b *base) copySealed(dst, key []byte) ([]byte, error) {
	err := b.viewSealed(key, func(sealed []byte) error {
		dst = append(dst, sealed...)
		return nil
	})
	return dst, err
}

// get is view with a copy.
func (b *base) get(key []byte) (value []byte, err error) {
	err = b.view(key, func(v []byte) error {
		value = append([]byte(nil), v...)
		return nil
	})
	return value, err
}

// scan passes keys with a prefix and their sealed values to f, in order of
// keys or against it, until f returns false. from is where to begin: the first
// key, included, if it is there; nil is the end of the prefix. Both slices are
// borrowed until f returns.
func (b *base) scan(prefix, from []byte, reverse bool, f func(key, sealed []byte) bool) error {
	if b.closed.Load() {
		return ErrClosed
	}
	err := guarded(func() error {
		return b.db.View(func(txn *badger.Txn) error {
			it := txn.NewIterator(badger.IteratorOptions{Reverse: reverse, PrefetchValues: false, Prefix: prefix})
			defer it.Close()
			seek := from
			if seek == nil {
				seek = prefix
				if reverse {
					seek = append(append([]byte(nil), prefix...), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
				}
			}
			for it.Seek(seek); it.ValidForPrefix(prefix); it.Next() {
				item := it.Item()
				more := true
				err := item.Value(func(v []byte) error {
					more = f(item.Key(), v)
					return nil
				})
				if err != nil || !more {
					return err
				}
			}
			return nil
		})
	})
	if errors.Is(err, ErrDamaged) {
		b.damaged.Add(1)
	}
	return err
}

// put applies changes in their order. What fits in one transaction is applied
// wholly or not at all; more than that is applied from the front. It is visible
// when put returns, and durable after [base.sync].
func (b *base) put(entries []entry) error {
	if b.closed.Load() {
		return ErrClosed
	}
	if err := b.space.check(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	txn := b.db.NewTransaction(true)
	defer func() { txn.Discard() }()
	seq := b.next
	apply := func(key, value []byte) error {
		set := func() error {
			if value == nil {
				return txn.Delete(key)
			}
			return txn.SetEntry(&badger.Entry{Key: key, Value: value})
		}
		err := set()
		if !errors.Is(err, badger.ErrTxnTooBig) {
			return err
		}
		if err := b.commit(txn, seq); err != nil {
			return err
		}
		txn = b.db.NewTransaction(true)
		return set()
	}
	for i := range entries {
		e := &entries[i]
		if len(e.value) >= maxValue {
			return fmt.Errorf("put %.40q: a value of %d bytes is too big", e.key, len(e.value))
		}
		value := e.value
		if e.remove {
			value = nil
		}
		if err := apply(e.key, value); err != nil {
			return fmt.Errorf("put: %w", err)
		}
		if !e.feed {
			continue
		}
		if e.old != 0 {
			if err := apply(feedKey(e.old), nil); err != nil {
				return fmt.Errorf("put: %w", err)
			}
		}
		k := feedKey(seq)
		if err := apply(k, seal(k, append([]byte(nil), e.key...))); err != nil {
			return fmt.Errorf("put: %w", err)
		}
		if e.seq != nil {
			*e.seq = seq
		}
		seq++
	}
	if err := b.commit(txn, seq); err != nil {
		return err
	}
	b.preallocate()
	return nil
}

// commit commits and makes the feed up to next visible. b.mu is held.
func (b *base) commit(txn *badger.Txn, next uint64) error {
	if err := txn.Commit(); err != nil {
		return noSpace("commit", err)
	}
	b.next = next
	b.head.Store(next - 1)
	return nil
}

// sync makes what was put durable.
func (b *base) sync() error {
	if err := b.db.Sync(); err != nil {
		return fmt.Errorf("sync badger: %w", err)
	}
	return nil
}

// drop removes all keys with the prefixes and frees their space.
func (b *base) drop(prefixes [][]byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.db.DropPrefix(prefixes...); err != nil {
		return fmt.Errorf("drop: %w", err)
	}
	b.preallocate()
	return nil
}

// preallocate gives blocks of the disk to the files that Badger writes through
// a mapping, so that a disk that somebody else fills up cannot fault them.
func (b *base) preallocate() {
	for _, pattern := range [...]string{"*.mem", "*.vlog"} {
		files, _ := filepath.Glob(filepath.Join(b.dir, pattern))
		for _, name := range files {
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			if err != nil {
				continue // Badger has just deleted it
			}
			if st, err := f.Stat(); err == nil && st.Size() > 0 && blocks(st)*512 < st.Size() {
				// Not every file system can; the reserve covers those that cannot.
				_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, st.Size())
			}
			_ = f.Close()
		}
	}
}

// close closes Badger, which flushes its memtable through a mapping. Where there
// is no room for that, not even with the ballast, Badger is left as it is: all is
// synced, and the process that ends soon will find it.
func (b *base) close(ballast string) error {
	if b.closed.Swap(true) {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	size := uint64(2 * b.db.Opts().MemTableSize)
	if !b.space.room(size) && (os.Remove(ballast) != nil || !b.space.room(size)) {
		return errors.Join(fmt.Errorf("close badger: %w", ErrNoSpace), b.db.Sync())
	}
	if err := b.db.Close(); err != nil {
		return fmt.Errorf("close badger: %w", err)
	}
	return nil
}
