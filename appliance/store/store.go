package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Store keeps what a site remembers. All methods may be called concurrently.
type Store struct {
	options Options
	dir     string
	base    *base
	space   *space
	pack    *packer
	node    string
	epoch   uint64

	// sealing is held by whoever moves things from memory to the base.
	sealing sync.Mutex

	mu       sync.Mutex // the fields below; taken after sealing
	heads    map[Series]*head
	ids      []*head // by number in the log, from 1
	resolved []*head // scratch of append
	lines    map[string]*timeline
	log      appendLog
	coder    columnCoder
	grid     grid
	live     liveSketches
	flows    []pendingFlow
	events   []pendingEvent
	totals   totalsBook
	states   map[string]*siteStates
	tails    map[*tail]struct{}
	ended    int    // open blocks whose hour is over
	sealed   uint64 // nothing of the log up to here is in it alone
	earliest int64  // time of the oldest and the newest raw sample that may be there
	latest   int64
	eventN   uint64
	flushed  uint64 // flows, events and states of the log up to here are in the base
	closed   bool

	fleet     fleetBook     // its own mutex
	forwarded forwardedSet  // its own mutex
	kick      chan struct{} // wakes Run up
	counts    counters
}

// counters are what [Store.Stats] shows.
type counters struct {
	batches, samples, duplicates, tailDropped, lost, unforwarded atomic.Uint64
}

// Stats are counters since Open, and sizes.
type Stats struct {
	Batches, Samples uint64 // appended
	Duplicates       uint64 // samples that were there already
	TailDropped      uint64 // batches that slow tails lost
	Damaged          uint64 // values that failed their checksum
	Lost             uint64 // octets of the log that were damaged, and samples with them
	Refused          uint64 // writes for want of space
	Unforwarded      uint64 // batches that Options.Forward did not take
	Series           int
	Bytes            uint64 // on disk
	Free             uint64 // of the file system
	Reserve          uint64 // below which writes are refused
	Full             bool   // the last write was refused for want of space
}

// The files in the directory of a store.
const (
	baseDir       = "badger"
	logDir        = "log"
	quarantineDir = "quarantine"
	ballastFile   = "ballast"
)

// deepBytes is up to what size each block is checked at every Open; beyond it
// only after a crash.
const deepBytes = 64 << 20

// maxAttempts is how often opening may end the process before the whole base is
// moved to quarantine.
const maxAttempts = 3

// Open opens the store in dir, and makes one if there is none. Damaged files
// are moved to dir/quarantine, which an event of type store_damaged tells, and
// what is left is opened. The error wraps [ErrNewer] for a store of a newer
// program and [ErrNoSpace] if the disk is too full even to read.
func Open(dir string, o Options) (*Store, error) {
	o = o.withDefaults()
	for _, d := range [...]string{dir, filepath.Join(dir, baseDir), filepath.Join(dir, logDir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, noSpace("open store", err)
		}
	}
	m, err := readMark(dir)
	if err != nil {
		return nil, err
	}
	sp, err := newSpace(dir, &o)
	if err != nil {
		return nil, err
	}
	if err := makeRoom(dir, sp, o.Dashboard); err != nil {
		return nil, err
	}
	s := &Store{
		options: o, dir: dir, space: sp,
		heads: map[Series]*head{}, ids: []*head{nil}, lines: map[string]*timeline{},
		states: map[string]*siteStates{}, tails: map[*tail]struct{}{}, kick: make(chan struct{}, 1),
	}
	if s.pack, err = newPacker(); err != nil {
		return nil, err
	}
	moved, err := s.openBase(&m)
	if err != nil {
		return nil, err
	}
	if err := s.load(&m, moved); err != nil {
		return nil, errors.Join(err, s.log.close(), s.base.close(s.ballast()))
	}
	if o.Dashboard {
		// What was replayed of an hour that is sealed already would else count
		// twice in the fleet's quantiles. A full disk leaves it to Run.
		if err := s.Seal(); err != nil && !errors.Is(err, ErrNoSpace) {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// openBase inspects and opens Badger. moved names what went to quarantine.
func (s *Store) openBase(m *mark) (moved []string, err error) {
	in := inspector{
		dir: filepath.Join(s.dir, baseDir), quarantine: filepath.Join(s.dir, quarantineDir),
		log: s.options.Log, now: s.options.Now(), deep: !m.Clean || used(filepath.Join(s.dir, baseDir)) <= deepBytes,
	}
	if m.Attempts >= maxAttempts {
		if err := in.lay(in.dir, fmt.Errorf("opening it ended the process %d times", m.Attempts)); err != nil {
			return nil, err
		}
		m.Attempts = 0
	}
	if err := in.run(); err != nil {
		return nil, err
	}
	m.Attempts++
	clean := m.Clean
	m.Clean = false
	if err := m.write(s.dir); err != nil {
		return nil, err
	}
	m.Clean = clean
	err = guarded(func() (err error) {
		s.base, err = openBase(in.dir, &s.options, s.space)
		return err
	})
	if err != nil {
		// What the inspection did not see, Badger did: begin anew, keep the old.
		if err := in.lay(in.dir, err); err != nil {
			return nil, err
		}
		if s.base, err = openBase(in.dir, &s.options, s.space); err != nil {
			return nil, err
		}
	}
	m.Attempts = 0
	return in.moved, nil
}

// makeRoom sees to it that Badger can map what it opens: on a full disk it
// gives back the ballast that was laid by when there was room.
func makeRoom(dir string, sp *space, dashboard bool) error {
	ballast := filepath.Join(dir, ballastFile)
	want := need(dashboard)
	free, _, err := sp.free(dir)
	if err != nil {
		return fmt.Errorf("free space: %w", err)
	}
	if free < want {
		if os.Remove(ballast) == nil {
			if free, _, err = sp.free(dir); err != nil {
				return fmt.Errorf("free space: %w", err)
			}
		}
		if free < want {
			return fmt.Errorf("open store: %w: %d MiB free, opening takes %d", ErrNoSpace, free>>20, want>>20)
		}
		return nil
	}
	return layBallast(ballast, sp, want)
}

// layBallast makes the ballast if there is room beyond the reserve.
func layBallast(name string, sp *space, size uint64) error {
	free, _, err := sp.free(sp.dir)
	if err != nil || free < sp.reserve+2*size {
		return nil // later, when there is room
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		return fmt.Errorf("ballast: %w", err)
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, int64(size))
	if err = errors.Join(err, f.Close()); err != nil {
		// A file system that cannot: the reserve alone must do.
		_ = os.Remove(name)
	}
	return nil
}

// Identity is what cursors into this store are bound to: random at creation.
func (s *Store) Identity() (node string, epoch uint64) { return s.node, s.epoch }

// String names the task that [Store.Run] is.
func (s *Store) String() string { return "store" }

func (s *Store) ballast() string { return filepath.Join(s.dir, ballastFile) }

// own reports whether a site is the store's own.
func (s *Store) own(site string) bool { return s.options.Site == "" || s.options.Site == site }

// Close moves what it may to the base and closes. Nothing that was appended is
// lost if it fails; with [ErrNoSpace] the directory stays locked until the
// process ends.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	err := s.flush()
	if errors.Is(err, ErrNoSpace) {
		err = nil // it stays in the log
	}
	s.sealing.Lock()
	defer s.sealing.Unlock()
	m := s.mark()
	m.Clean = true
	s.mu.Lock()
	err = errors.Join(err, s.log.close())
	s.mu.Unlock()
	if err = errors.Join(err, s.base.close(s.ballast())); err == nil {
		err = m.write(s.dir)
	}
	s.pack.close()
	return err
}

// Stats is a picture of the counters. Bytes takes a walk over the directory.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	series := len(s.heads)
	s.mu.Unlock()
	free, _, _ := s.space.free(s.dir)
	return Stats{
		Batches: s.counts.batches.Load(), Samples: s.counts.samples.Load(), Duplicates: s.counts.duplicates.Load(),
		TailDropped: s.counts.tailDropped.Load(), Unforwarded: s.counts.unforwarded.Load(), Damaged: s.base.damaged.Load(), Lost: s.counts.lost.Load(),
		Refused: s.space.refused.Load(), Series: series, Bytes: used(s.dir), Free: free, Reserve: s.space.reserve,
		Full: s.space.full.Load(),
	}
}

// Damaged is how many values failed their checksum since Open.
func (s *Store) Damaged() uint64 { return s.base.damaged.Load() }

// Append stores a tick. It is durable when it returns nil. Events without an
// id get one. The error wraps [ErrNoSpace] if the disk is filled up to the
// reserve; nothing of the batch was stored then.
func (s *Store) Append(ctx context.Context, b Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.space.check(); err != nil {
		return fmt.Errorf("append: %w", err)
	}
	lsn, err := s.write(ctx, &b)
	if err != nil {
		return fmt.Errorf("append: %w", err)
	}
	if err := s.log.sync(lsn); err != nil {
		return fmt.Errorf("append: %w", err)
	}
	return s.relieve()
}
