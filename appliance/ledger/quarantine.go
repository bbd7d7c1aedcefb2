package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/ristretto/v2/z"
)

// probe opens every table that the manifest names, on this goroutine: badger
// does so on its own ones, where a panic about a damaged table ends the
// process, at every start again.
func (o Options) probe(dbDir string) error {
	f, err := os.Open(filepath.Join(dbDir, badger.ManifestFilename))
	if errors.Is(err, os.ErrNotExist) {
		return nil // a new one
	}
	if err != nil {
		return err
	}
	defer f.Close() // only read
	m, err := replayManifest(f, o.database(dbDir))
	if err != nil {
		return finding(err.Error())
	}
	for id := range m.Tables {
		if err := probeTable(filepath.Join(dbDir, table.IDToFilename(id))); err != nil {
			return finding(fmt.Sprintf("table %s: %v", table.IDToFilename(id), err))
		}
	}
	return nil
}

func replayManifest(f *os.File, b badger.Options) (m badger.Manifest, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("manifest: %v", r)
		}
	}()
	m, _, err = badger.ReplayManifestFile(f, b.ExternalMagicVersion, b)
	if err != nil {
		return m, fmt.Errorf("manifest: %w", err)
	}
	return m, nil
}

func probeTable(name string) error {
	return withTable(name, func(*table.Table) error { return nil })
}

// withTable opens a table, verifies all its blocks and calls f.
func withTable(name string, f func(*table.Table) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if info.Size() < 16 {
		return errors.New("it is too short")
	}
	file, err := z.OpenMmapFile(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	// OpenTable closes the file when it fails, except when it panics; that one
	// stays mapped.
	t, err := table.OpenTable(file, table.Options{ReadOnly: true, ChkMode: options.OnTableAndBlockRead, BlockSize: 4096})
	if err != nil {
		return err
	}
	return errors.Join(f(t), t.Close(-1))
}

// earlierDamage is the DamageError of an earlier Open, if it has not been
// settled by Restore.
func earlierDamage(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, damageFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	d := &DamageError{Dir: dir}
	if err := json.Unmarshal(text, &d); err != nil {
		// The note itself is damaged: that it is there is what counts.
		d = &DamageError{Dir: dir, Why: "found earlier", Quarantine: newestQuarantine(dir)}
	}
	// A process may have ended between writing the note and moving the files.
	if err := setAside(dir, d.Quarantine); err != nil {
		return errors.Join(d, err)
	}
	d.Dir, d.Backups = dir, Backups(dir)
	return d
}

// quarantine writes the note and moves the files. The note comes first: from
// then on no Open starts anything here.
func quarantine(dir string, why finding) error {
	d := &DamageError{Dir: dir, Why: string(why), Backups: Backups(dir)}
	d.Quarantine = filepath.Join(dir, "quarantine-"+time.Now().UTC().Format("20060102T150405.000"))
	note, err := json.MarshalIndent(d, "", "\t")
	if err == nil {
		err = writeSynced(filepath.Join(dir, damageFile), append(note, '\n'))
	}
	if err == nil {
		err = setAside(dir, d.Quarantine)
	}
	if err != nil {
		return errors.Join(d, err)
	}
	return d
}

// setAside moves what is left of a ledger.
func setAside(dir, to string) error {
	for _, name := range []string{dbName, headName, formatFile} {
		from := filepath.Join(dir, name)
		if _, err := os.Lstat(from); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := os.MkdirAll(to, 0o700); err != nil {
			return err
		}
		if err := os.Rename(from, filepath.Join(to, name)); err != nil {
			return fmt.Errorf("set damaged files aside: %w", err)
		}
	}
	return syncDir(dir)
}

func newestQuarantine(dir string) string {
	all, err := filepath.Glob(filepath.Join(dir, "quarantine-*"))
	if err != nil || len(all) == 0 {
		return filepath.Join(dir, "quarantine-unknown")
	}
	return slices.Max(all)
}
