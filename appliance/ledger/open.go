package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/dgraph-io/badger/v4"
)

// Names in the directory of a ledger.
const (
	formatFile = "FORMAT"
	headName   = "HEAD"
	lockName   = "LOCK"
	// ballastName is space for opening and closing on a full disk.
	ballastName = "BALLAST"
	damageFile  = "DAMAGED"
	dbName      = "db"
	backupName  = "backups"
)

// Format is the version of the layout that this program writes: see FORMAT.md.
const Format = 1

const formatText = "patronus ledger format "

// step migrates the layout by one version, before the values are verified.
type step func(dir string, db *badger.DB) error

// finding is a reason not to trust the files.
type finding string

func (f finding) Error() string { return string(f) }

// Open opens the ledger in a directory with these options: see the function.
func (o Options) Open(dir string) (*Ledger, error) {
	o = o.withDefaults()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	lock, err := claim(filepath.Join(dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l, err := o.open(dir)
	if err != nil {
		return nil, errors.Join(err, lock.release())
	}
	l.lock = lock
	layBallast(dir, o)
	return l, nil
}

func (o Options) open(dir string) (*Ledger, error) {
	if err := earlierDamage(dir); err != nil {
		return nil, err
	}
	l, err := o.load(dir)
	var found finding
	if errors.As(err, &found) {
		return nil, quarantine(dir, found)
	}
	if err != nil {
		return nil, fmt.Errorf("open ledger %s: %w", dir, err)
	}
	return l, nil
}

// load opens the files; a finding is what cannot be trusted, other errors leave
// them as they are.
func (o Options) load(dir string) (*Ledger, error) {
	format, err := readFormat(dir)
	if err != nil {
		return nil, err
	}
	if format > Format {
		return nil, fmt.Errorf("format %d, this program knows up to %d: %w", format, Format, ErrNewer)
	}
	if err := enough(dir, o); err != nil && !dropBallast(dir, o) {
		return nil, err
	}
	dbDir := filepath.Join(dir, dbName)
	if format > 0 {
		for _, name := range []string{dbDir, filepath.Join(dbDir, badger.ManifestFilename)} {
			if _, err := os.Stat(name); errors.Is(err, os.ErrNotExist) {
				return nil, finding(name + " is missing")
			}
		}
	}
	if err := o.probe(dbDir); err != nil {
		return nil, err
	}
	db, err := openDatabase(o.database(dbDir))
	if err != nil {
		return nil, err
	}
	heads, err := openHeadFile(filepath.Join(dir, headName))
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	c, err := newCodec()
	if err != nil {
		return nil, errors.Join(err, heads.f.Close(), db.Close())
	}
	l := &Ledger{dir: dir, opt: o, db: db, codec: c, heads: heads, live: map[string]liveKey{}}
	if err := l.adopt(format); err != nil {
		c.close()
		return nil, errors.Join(err, heads.f.Close(), closeDatabase(db))
	}
	return l, nil
}

// adopt migrates, verifies and learns what the database holds.
func (l *Ledger) adopt(format int) error {
	for v := max(format, 1); format > 0 && v < Format+len(l.opt.steps); v++ {
		if err := l.opt.steps[v-1](l.dir, l.db); err != nil {
			return fmt.Errorf("migrate from format %d: %w", v, err)
		}
	}
	txn := l.db.NewTransaction(false)
	defer txn.Discard()
	h, err := readHead(txn)
	if err != nil {
		return finding(err.Error())
	}
	onFile, ok, _, err := l.heads.read()
	if err != nil {
		return err
	}
	switch {
	case format == 0 && (h.commit > 0 || ok && onFile.commit > 0):
		return finding("the file " + formatFile + " is missing")
	case ok && onFile.commit > h.commit:
		return finding(fmt.Sprintf("commits %d to %d are missing", h.commit+1, onFile.commit))
	case ok && onFile.commit == h.commit && onFile != h:
		return finding(fmt.Sprintf("the two heads of commit %d differ", h.commit))
	}
	if err := l.learn(txn, h); err != nil {
		return err
	}
	l.head = h
	if !ok || onFile != h {
		// One commit was not yet in the file when the process ended, or the file
		// was damaged: the database agrees with itself.
		if err := l.heads.write(h); err != nil {
			return err
		}
	}
	if format != Format {
		return writeSynced(filepath.Join(l.dir, formatFile), []byte(formatText+strconv.Itoa(Format)+"\n"))
	}
	return nil
}

// learn reads all values, and compares them with the head.
func (l *Ledger) learn(txn *badger.Txn, h head) error {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(valuePrefix)})
	defer it.Close()
	var have head
	for it.Rewind(); it.Valid(); it.Next() {
		key := string(it.Item().Key()[len(valuePrefix):])
		err := it.Item().Value(func(data []byte) error {
			_, s, err := l.codec.open(key, data)
			l.live[key] = liveKey{sum: s}
			have.sum.add(s)
			have.keys++
			return err
		})
		if err != nil {
			return finding((&KeyError{key, err.Error()}).Error())
		}
	}
	if have.keys != h.keys {
		return finding(fmt.Sprintf("it holds %d keys and should hold %d", have.keys, h.keys))
	}
	if have.sum != h.sum {
		return finding("a value is older than it should be")
	}
	if h.audit.Seq == 0 {
		return nil
	}
	audits := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(auditPrefix)})
	defer audits.Close()
	audits.Seek(auditKey(h.audit.Seq))
	last, bad := l.auditAt(audits, h.audit.Seq)
	if bad != nil {
		return finding(bad.Error())
	}
	if last.Hash != h.audit.Hash {
		return finding((&AuditError{last.Seq, "is not the one that the head names"}).Error())
	}
	return nil
}

// openDatabase opens badger. It panics on some kinds of damage.
func openDatabase(b badger.Options) (db *badger.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, finding(fmt.Sprintf("the database does not open: %v", r))
		}
	}()
	db, err = badger.Open(b)
	if err == nil || machine(err) {
		return db, err
	}
	return nil, finding("the database does not open: " + err.Error())
}

// machine tells errors of the machine (permissions, descriptors, a full disk)
// from those of the files.
func machine(err error) bool {
	var no syscall.Errno
	return errors.As(err, &no) && no != syscall.ENOENT && no != syscall.EINVAL ||
		strings.Contains(err.Error(), "directory lock")
}

func closeDatabase(db *badger.DB) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("close the database: %v", r)
		}
	}()
	return db.Close()
}

// readFormat is the version on the disk, 0 when there is no ledger yet.
func readFormat(dir string) (int, error) {
	text, err := os.ReadFile(filepath.Join(dir, formatFile))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	number, ok := bytes.CutPrefix(bytes.TrimSuffix(text, []byte("\n")), []byte(formatText))
	n, err := strconv.Atoi(string(number))
	if !ok || err != nil || n < 1 {
		return 0, finding(fmt.Sprintf("the file %s holds %.40q", formatFile, text))
	}
	return n, nil
}

// writeSynced replaces a file so that it is the old or the new one whatever
// happens, and is on the disk when it returns.
func writeSynced(name string, data []byte) error {
	next := name + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(next, name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
