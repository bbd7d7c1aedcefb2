package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// Options tune a ledger; the zero value is right for an appliance.
type Options struct {
	// Reserve is the free space in bytes below which nothing is written; 0 is
	// twice what the database maps at once, or a tenth of the file system if
	// that is less, but never less than once. Badger writes through mappings:
	// on a full disk the kernel would kill the process (SIGBUS).
	Reserve int64

	// free tells the free bytes of the file system; tests replace it.
	free func(dir string) (free, total int64, err error)
	// memTable is the size of a memtable in bytes; tests make it small.
	memTable int64
	// scrub and backup are how often Run does so; tests make it often.
	scrub, backup time.Duration
	// steps migrate the format: steps[i] goes from format i+1 to i+2.
	steps []step
}

// Ledger is an open store. See the package for what it promises.
type Ledger struct {
	dir   string
	opt   Options
	db    *badger.DB
	codec *codec
	heads headFile
	lock  lockFile

	// committing is held by the one commit in progress.
	committing sync.Mutex
	watch      watchers

	mu     sync.RWMutex // guards what follows; only the holder of committing writes
	head   head
	live   map[string]liveKey
	purged uint64 // commit of the newest deletion
	failed error
	closed bool
}

// Open opens the ledger in a directory, and makes it if there is none. All
// values are read and checked.
//
// A ledger that is not what was written is put aside, and this and every later
// Open returns a DamageError until Restore was called. ErrNewer, ErrLocked and
// ErrFull leave everything as it is.
func Open(dir string) (*Ledger, error) { return Options{}.Open(dir) }

// Close writes out what is in memory and closes the files. Transactions must
// have ended; later ones fail. On a full disk without any space left, it keeps
// the database's files open until the process ends.
func (l *Ledger) Close() error {
	l.committing.Lock()
	defer l.committing.Unlock()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	var err error
	if dropBallast(l.dir, l.opt) {
		err = l.db.Close()
	}
	// Without space for it badger is left as a killed process leaves it: closing
	// would write a table through a mapping. All commits are in its log.
	l.codec.close()
	return errors.Join(err, l.heads.f.Close(), l.lock.release())
}

// Health is nil, or why the ledger can no longer be trusted: ErrFailed, or
// what Verify found.
func (l *Ledger) Health() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.failed
}

// View runs f on one consistent state. It waits for nobody.
func (l *Ledger) View(f func(*Tx) error) error {
	tx, err := l.begin(false)
	if err != nil {
		return err
	}
	defer tx.txn.Discard()
	return f(tx)
}

// alone is the number of conflicts after which f runs while no other commit
// can: a long transaction among many short ones would never end otherwise.
const alone = 16

// Update runs f and commits what it did, all or nothing. When it returns nil
// that is on the disk, synced. f sees the state before any other commit: if
// another one changed what f read, f runs again, so it must have no effects
// but on the Tx, and must not call the ledger. An error of f undoes everything
// and is returned as it is.
//
// Errors: ErrFull, ErrTooBig, ErrFailed, and ctx's when it ends before the
// commit begins.
func (l *Ledger) Update(ctx context.Context, f func(*Tx) error) error {
	for attempt := 0; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := l.try(f, attempt >= alone)
		if !errors.Is(err, badger.ErrConflict) {
			l.watch.deliver()
			return err
		}
	}
}

func (l *Ledger) try(f func(*Tx) error, exclusive bool) error {
	if exclusive {
		l.committing.Lock()
		defer l.committing.Unlock()
	}
	tx, err := l.begin(true)
	if err != nil {
		return err
	}
	tx.exclusive = exclusive
	defer tx.txn.Discard()
	if err := f(tx); err != nil {
		return err
	}
	if len(tx.writes) == 0 && len(tx.audits) == 0 {
		return nil
	}
	if !exclusive {
		l.committing.Lock()
		defer l.committing.Unlock()
	}
	return l.commit(tx)
}

func (l *Ledger) begin(update bool) (*Tx, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return nil, errors.New("ledger is closed")
	}
	// A failed commit is in doubt: reading what was there before is not.
	if update && errors.Is(l.failed, ErrFailed) {
		return nil, l.failed
	}
	tx := &Tx{l: l, txn: l.db.NewTransaction(update), at: l.head.commit}
	if update {
		tx.writes = make(map[string]*sum)
	}
	return tx, nil
}

// commit makes a transaction durable. The caller holds committing, so that
// head and live are those that this commit follows.
func (l *Ledger) commit(tx *Tx) error {
	if err := l.space(); err != nil {
		return err
	}
	next := l.head
	next.commit++
	for key, s := range tx.writes {
		if old, ok := l.live[key]; ok {
			next.sum.sub(old.sum)
			next.keys--
		}
		if s != nil {
			next.sum.add(*s)
			next.keys++
		}
	}
	for _, r := range tx.chain {
		next.audit = AuditHead{r.Seq, r.Hash}
	}
	for _, r := range tx.audits {
		r.Seq, r.Prev = next.audit.Seq+1, next.audit.Hash
		line, err := r.encode()
		if err != nil {
			return err
		}
		next.audit = AuditHead{r.Seq, r.Hash}
		name := auditKey(r.Seq)
		data, _ := l.codec.seal(string(name), line)
		if len(data) > l.opt.maxSealed() {
			return fmt.Errorf("audit record of %s: %w", r.Action, ErrTooBig)
		}
		if err := tooBig(tx.txn.Set(name, data)); err != nil {
			return err
		}
	}
	if err := tooBig(tx.txn.Set([]byte(headKey), next.encode())); err != nil {
		return err
	}
	if err := tx.txn.Commit(); err != nil {
		if errors.Is(err, badger.ErrConflict) || errors.Is(err, ErrTooBig) {
			return err
		}
		return l.fail(fmt.Errorf("commit: %w", err))
	}
	if err := l.heads.write(next); err != nil {
		return l.fail(err)
	}
	l.mu.Lock()
	l.head = next
	keys := make([]string, 0, len(tx.writes))
	for key, s := range tx.writes {
		keys = append(keys, key)
		if s == nil {
			delete(l.live, key)
			l.purged = next.commit
		} else {
			l.live[key] = liveKey{*s, next.commit}
		}
	}
	l.mu.Unlock()
	l.watch.add(keys)
	return nil
}

// fail stops all further commits: whether this one is on the disk is unknown,
// and so is what the next would follow.
func (l *Ledger) fail(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = fmt.Errorf("%w: %w", ErrFailed, err)
	return l.failed
}

// space is ErrFull when the file system has no room for a commit and for what
// badger writes after it on its own.
func (l *Ledger) space() error {
	return enough(l.dir, l.opt)
}

func tooBig(err error) error {
	if errors.Is(err, badger.ErrTxnTooBig) {
		return fmt.Errorf("transaction: %w", ErrTooBig)
	}
	return err
}

// Head is the end of the audit chain as of the last commit, to be kept
// elsewhere too.
func (l *Ledger) Head() AuditHead {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.head.audit
}

// Commits counts the commits since the ledger was made.
func (l *Ledger) Commits() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.head.commit
}

// How often Run tends to the files.
const (
	scrubEvery  = 6 * time.Hour
	backupEvery = time.Hour
)

// String names the task.
func (l *Ledger) String() string { return "ledger" }

// Run tends to the files until ctx ends: a backup within the hour after a
// change (the last three are kept), and everything checked every six hours (see
// Health). What fails is tried again the next time.
func (l *Ledger) Run(ctx context.Context) error {
	scrub, backup := time.NewTicker(l.opt.scrub), time.NewTicker(l.opt.backup)
	defer scrub.Stop()
	defer backup.Stop()
	saved := uint64(0)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-scrub.C:
			l.scrub()
		case <-backup.C:
			if n := l.Commits(); n != saved && l.saveBackup() == nil {
				saved = n
			}
		}
	}
}

func (l *Ledger) scrub() {
	if err := l.Verify(); errors.Is(err, ErrDamaged) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.failed == nil {
			l.failed = err
		}
	}
}
