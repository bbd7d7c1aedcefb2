package ledger

import (
	"errors"
	"slices"

	"github.com/dgraph-io/badger/v4"
)

// liveKey is what the newest value of a key must be. All of them are in memory:
// a configuration has thousands of keys, not millions. Badger drops what it
// cannot read (a table's block, the rest of a log) and says nothing, so
// without this a damaged file would make keys vanish or go back.
type liveKey struct {
	sum    sum
	commit uint64 // when it was written; 0: before the ledger was opened
}

// suspect says why what a transaction reads under a key cannot be right: found
// is the sum of the value, nil when there is none. A commit in progress may be
// visible in the database and not yet here, so it looks twice.
func (tx *Tx) suspect(key string, found *sum) string {
	if tx.doubt(key, found) == "" {
		return ""
	}
	if !tx.exclusive {
		tx.l.committing.Lock()
		defer tx.l.committing.Unlock()
	}
	return tx.doubt(key, found)
}

func (tx *Tx) doubt(key string, found *sum) string {
	l := tx.l
	l.mu.RLock()
	defer l.mu.RUnlock()
	want, ok := l.live[key]
	switch {
	case ok && want.commit > tx.at:
		return "" // written since this transaction began: what it sees is older
	case ok && found == nil:
		return "missing"
	case ok && *found != want.sum:
		return "an older value"
	case !ok && found != nil && l.purged <= tx.at:
		return "a deleted value"
	}
	return ""
}

// absent are the keys within a range that a transaction should have seen but,
// having seen so many, did not.
func (tx *Tx) absent(within func(string) bool, seen int) []string {
	l := tx.l
	l.mu.RLock()
	var all []string
	want := 0
	for key, k := range l.live {
		if within(key) && !tx.mine(key) {
			want++
			if k.commit <= tx.at {
				all = append(all, key)
			}
		}
	}
	l.mu.RUnlock()
	if want == seen {
		return nil
	}
	slices.Sort(all)
	return slices.DeleteFunc(all, func(key string) bool {
		_, err := tx.txn.Get([]byte(valuePrefix + key))
		return err == nil || !errors.Is(err, badger.ErrKeyNotFound) || tx.suspect(key, nil) == ""
	})
}

// Verify reads everything and compares it with the head: values, that none is
// missing, older or too many, and the audit chain. Badger's own checksums are
// checked on the way. Commits go on meanwhile. ErrDamaged or ErrAudit.
func (l *Ledger) Verify() error {
	if err := l.db.VerifyChecksum(); err != nil {
		return errors.Join(ErrDamaged, err)
	}
	if err := l.View(func(tx *Tx) error {
		return tx.Scan("", "", func(string, []byte) bool { return true })
	}); err != nil {
		return err
	}
	_, err := l.VerifyAudit()
	return err
}
