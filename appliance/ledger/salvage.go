package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
)

// Salvaged is what could be read of a damaged ledger.
type Salvaged struct {
	Keys   int      // values that are what was once written
	Audits int      // audit records, likewise
	Lost   []string // keys whose newest value is damaged
	Files  []string // files of which nothing or not everything could be read
}

// found is the newest version of a name seen so far.
type found struct {
	version uint64
	deleted bool
	data    []byte
}

// Salvage reads what it can of a ledger that does not open (dir, or one of its
// quarantine directories), changes nothing in it, and writes that to w in the
// form that Restore takes. Every value in it was once written under its key;
// but where files are gone, some may be missing or not the newest: a person
// should look before it is restored.
func Salvage(dir string, w io.Writer) (Salvaged, error) {
	var s Salvaged
	dbDir := filepath.Join(dir, dbName)
	if _, err := os.Stat(dbDir); errors.Is(err, os.ErrNotExist) {
		dbDir = filepath.Join(newestQuarantine(dir), dbName)
	}
	files, err := os.ReadDir(dbDir)
	if err != nil {
		return s, fmt.Errorf("salvage ledger: %w", err)
	}
	newest := map[string]found{}
	var logs []string
	for _, f := range files {
		name := filepath.Join(dbDir, f.Name())
		switch filepath.Ext(name) {
		case ".sst":
			if err := withTable(name, func(t *table.Table) error { return gatherTable(t, newest) }); err != nil {
				s.Files = append(s.Files, f.Name())
			}
		case ".mem":
			logs = append(logs, name)
		}
	}
	for _, name := range logs {
		if err := gatherLog(name, newest); err != nil {
			s.Files = append(s.Files, filepath.Base(name))
		}
	}
	if err := s.write(newest, w); err != nil {
		return s, fmt.Errorf("salvage ledger: %w", err)
	}
	return s, nil
}

func (s *Salvaged) write(newest map[string]found, w io.Writer) error {
	c, err := newCodec()
	if err != nil {
		return err
	}
	defer c.close()
	out := newBackupWriter(w)
	if err := out.line(backupLine{Start: &backupStart{Format: Format, At: time.Now().UTC(), Salvaged: true}}); err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(newest))
	// Values first, as in a backup.
	slices.SortStableFunc(names, func(a, b string) int { return strings.Compare(b[:1], a[:1]) })
	for _, name := range names {
		f := newest[name]
		if f.deleted || name == headKey {
			continue
		}
		line := backupLine{}
		switch name[:1] {
		case valuePrefix:
			line.Key = name[len(valuePrefix):]
			line.Value, _, err = c.open(line.Key, f.data)
		case auditPrefix:
			line.Audit = new(AuditRecord)
			var text []byte
			if text, _, err = c.open(name, f.data); err == nil {
				err = json.Unmarshal(text, line.Audit)
			}
		}
		if err != nil {
			s.Lost = append(s.Lost, fmt.Sprintf("%q", strings.TrimPrefix(name, valuePrefix)))
			continue
		}
		if err := out.line(line); err != nil {
			return err
		}
	}
	s.Keys, s.Audits = out.end.Keys, out.end.Audits
	out.end.Lost = s.Lost
	return out.finish()
}

func keep(newest map[string]found, name string, f found) {
	if name == "" || strings.HasPrefix(name, "!badger!") {
		return
	}
	if old, ok := newest[name]; !ok || f.version > old.version {
		newest[name] = f
	}
}

// deleted is badger's mark of a deletion; it is part of its file format.
const deleted = 1

// gatherTable reads a table without a database around it.
func gatherTable(t *table.Table, newest map[string]found) error {
	it := t.NewIterator(0)
	defer it.Close() // only read
	for it.Rewind(); it.Valid(); it.Next() {
		v := it.Value()
		keep(newest, string(y.ParseKey(it.Key())), found{y.ParseTs(it.Key()), v.Meta&deleted != 0, slices.Clone(v.Value)})
	}
	return nil
}

// gatherLog reads a memtable's log: badger replays a copy of it that stands
// alone in a directory.
func gatherLog(name string, newest map[string]found) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: %v", name, r)
		}
	}()
	dir, err := os.MkdirTemp("", "patronus-salvage-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // a copy
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), data, 0o600); err != nil {
		return err
	}
	o := Options{memTable: max(memTableSize, int64(len(data)))}.withDefaults()
	db, err := openDatabase(o.database(dir))
	if err != nil {
		return err
	}
	txn := db.NewTransaction(false)
	it := txn.NewIterator(badger.IteratorOptions{AllVersions: true})
	for it.Rewind(); it.Valid(); it.Next() {
		item := it.Item()
		f := found{version: item.Version(), deleted: item.IsDeletedOrExpired()}
		if !f.deleted {
			if f.data, err = item.ValueCopy(nil); err != nil {
				f.data = nil
			}
		}
		keep(newest, string(item.Key()), f)
	}
	it.Close()
	txn.Discard()
	return closeDatabase(db)
}
