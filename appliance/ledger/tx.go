package ledger

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/dgraph-io/badger/v4"
)

// Names in the database: a letter, then the rest.
const (
	valuePrefix = "k"
	auditPrefix = "a"
	headKey     = "h"
)

// MaxKey is the greatest length of a key, in bytes.
const MaxKey = 1024

// Tx is a transaction: what was committed before it began, and its own writes.
// It is used by one goroutine, and not after its function returned.
type Tx struct {
	l         *Ledger
	txn       *badger.Txn
	at        uint64          // commit that it certainly sees
	writes    map[string]*sum // nil sum: deleted; nil map: View
	audits    []AuditRecord
	chain     []AuditRecord // of a backup, stored as they are
	exclusive bool          // holds committing
}

func checkKey(key string) error {
	if key == "" || len(key) > MaxKey || !utf8.ValidString(key) {
		return fmt.Errorf("key %.40q: %w: 1 to %d bytes of UTF-8", key, ErrInvalid, MaxKey)
	}
	return nil
}

// Get is the value of a key; the caller owns it. ErrNotFound, or a KeyError
// (ErrDamaged) when there is a value that cannot be vouched for.
func (tx *Tx) Get(key string) ([]byte, error) {
	item, err := tx.txn.Get([]byte(valuePrefix + key))
	if errors.Is(err, badger.ErrKeyNotFound) || errors.Is(err, badger.ErrEmptyKey) {
		if tx.mine(key) {
			return nil, ErrNotFound
		}
		if why := tx.suspect(key, nil); why != "" {
			return nil, &KeyError{key, why}
		}
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, &KeyError{key, err.Error()}
	}
	return tx.value(key, item)
}

func (tx *Tx) value(key string, item *badger.Item) ([]byte, error) {
	var value []byte
	var s sum
	err := item.Value(func(data []byte) (err error) {
		value, s, err = tx.l.codec.open(key, data)
		return err
	})
	if err != nil {
		return nil, &KeyError{key, err.Error()}
	}
	if tx.mine(key) {
		return value, nil
	}
	if why := tx.suspect(key, &s); why != "" {
		return nil, &KeyError{key, why}
	}
	return value, nil
}

func (tx *Tx) mine(key string) bool {
	_, ok := tx.writes[key]
	return ok
}

// Put sets the value of a key, which it copies. ErrInvalid, ErrTooBig.
func (tx *Tx) Put(key string, v []byte) error {
	if err := tx.writable(key); err != nil {
		return err
	}
	if len(v) > MaxValue {
		return fmt.Errorf("value of %q, %d bytes: %w", key, len(v), ErrTooBig)
	}
	data, s := tx.l.codec.seal(key, v)
	if len(data) > tx.l.opt.maxSealed() {
		return fmt.Errorf("value of %q, %d bytes when compressed: %w", key, len(data), ErrTooBig)
	}
	if err := tooBig(tx.txn.Set([]byte(valuePrefix+key), data)); err != nil {
		return err
	}
	tx.writes[key] = &s
	return nil
}

// Delete removes a key; it is no error when there is none.
func (tx *Tx) Delete(key string) error {
	if err := tx.writable(key); err != nil {
		return err
	}
	if err := tooBig(tx.txn.Delete([]byte(valuePrefix + key))); err != nil {
		return err
	}
	tx.writes[key] = nil
	return nil
}

func (tx *Tx) writable(key string) error {
	if tx.writes == nil {
		return fmt.Errorf("write of %q in a View: %w", key, ErrInvalid)
	}
	return checkKey(key)
}

// Scan calls f with the keys that begin with prefix and follow after ("" for
// the first), in bytewise order, until f returns false; v is f's to keep.
// Damaged values are left out and named by the error, joined, at the end.
func (tx *Tx) Scan(prefix, after string, f func(key string, v []byte) bool) error {
	it := tx.txn.NewIterator(badger.IteratorOptions{Prefix: []byte(valuePrefix + prefix), PrefetchValues: false})
	defer it.Close()
	from := valuePrefix + prefix
	if after != "" && valuePrefix+after >= from {
		from = valuePrefix + after + "\x00"
	}
	var damaged []error
	var last string
	old := 0 // keys seen that this transaction did not write
	whole := true
	for it.Seek([]byte(from)); it.Valid(); it.Next() {
		key := string(it.Item().Key()[len(valuePrefix):])
		last = key
		if !tx.mine(key) {
			old++
		}
		v, err := tx.value(key, it.Item())
		if err != nil {
			damaged = append(damaged, err)
			continue
		}
		if !f(key, v) {
			whole = false
			break
		}
	}
	within := func(key string) bool {
		return strings.HasPrefix(key, prefix) && (after == "" || key > after) && (whole || key <= last)
	}
	for _, key := range tx.absent(within, old) {
		damaged = append(damaged, &KeyError{key, "missing"})
	}
	return errors.Join(damaged...)
}
