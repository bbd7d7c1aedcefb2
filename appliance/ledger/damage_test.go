package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// What vanishes, returns or goes back below the ledger is never served, even
// when every single value is intact.
func TestRuntimeDamage(t *testing.T) {
	l := open(t, t.TempDir())
	put(t, l, "user/a", "1", "user/b", "1", "user/c", "1", "user/d", "1")
	old, _ := l.codec.seal("user/b", []byte("0"))
	gone, _ := l.codec.seal("user/gone", []byte("1"))
	other, _ := l.codec.seal("user/a", []byte("1"))
	forge(t, l, func(txn *badger.Txn) error {
		return errors.Join(txn.Delete([]byte("kuser/a")), txn.Set([]byte("kuser/b"), old),
			txn.Set([]byte("kuser/c"), other), txn.Set([]byte("kuser/gone"), gone))
	})
	if err := l.View(func(tx *Tx) error {
		for _, key := range []string{"user/a", "user/b", "user/c", "user/gone"} {
			v, err := tx.Get(key)
			var at *KeyError
			if v != nil || !errors.As(err, &at) || at.Key != key || !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: %q, %v", key, v, err)
			}
		}
		if v, err := tx.Get("user/d"); err != nil || string(v) != "1" {
			t.Errorf("user/d: %q, %v", v, err)
		}
		var keys []string
		err := tx.Scan("user/", "", func(key string, _ []byte) bool { keys = append(keys, key); return true })
		if !slices.Equal(keys, []string{"user/d"}) || !errors.Is(err, ErrDamaged) {
			t.Errorf("scan: %v, %v", keys, err)
		}
		for _, key := range []string{"user/a", "user/b", "user/c", "user/gone"} {
			if !strings.Contains(fmt.Sprint(err), strconv.Quote(key)) {
				t.Errorf("scan does not name %s: %v", key, err)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := l.Verify(); !errors.Is(err, ErrDamaged) {
		t.Errorf("verify: %v", err)
	}
	// Setting it anew mends it.
	put(t, l, "user/a", "2", "user/b", "2", "user/c", "2")
	if err := l.Update(t.Context(), func(tx *Tx) error { return tx.Delete("user/gone") }); err != nil {
		t.Fatal(err)
	}
	if err := l.Verify(); err != nil {
		t.Errorf("mended: %v", err)
	}
}

// ruin makes a ledger that does not open, and returns what was in it.
func ruin(t *testing.T, dir string) map[string]string {
	t.Helper()
	l, err := Options{memTable: 1 << 20, Reserve: 1}.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for i := range 20 {
		key := fmt.Sprintf("key/%02d", i)
		want[key] = strings.Repeat(key, i)
		put(t, l, key, want[key])
	}
	audit(t, l, AuditRecord{User: "u", Action: "a"}, AuditRecord{User: "u", Action: "b"})
	if err := l.saveBackup(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// Close wrote everything into one table; the other holds one key more.
	if l, err = (Options{memTable: 1 << 20, Reserve: 1}).Open(dir); err != nil {
		t.Fatal(err)
	}
	want["late"] = "late"
	put(t, l, "late", "late")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, dbName, "*.sst"))
	if err != nil || len(tables) < 2 {
		t.Fatalf("tables %v, %v", tables, err)
	}
	slices.Sort(tables)
	damage(t, tables[len(tables)-1], false, rand.New(rand.NewPCG(1, 1)))
	return want
}

func TestQuarantineSalvageRestore(t *testing.T) {
	dir := t.TempDir()
	want := ruin(t, dir)
	_, err := Open(dir)
	var d *DamageError
	if !errors.As(err, &d) || !errors.Is(err, ErrDamaged) || len(d.Backups) != 1 {
		t.Fatalf("open: %v", err)
	}
	if _, err := os.Stat(filepath.Join(d.Quarantine, dbName, "MANIFEST")); err != nil {
		t.Error(err)
	}
	if again := new(DamageError); !errors.As(second(Open(dir)), &again) || again.Error() != d.Error() {
		t.Errorf("opened again: %v", again)
	}
	var salvaged bytes.Buffer
	s, err := Salvage(dir, &salvaged)
	if err != nil || s.Keys != 20 || s.Audits != 2 || len(s.Files) != 1 {
		t.Errorf("salvaged %+v, %v", s, err)
	}
	late := want["late"]
	delete(want, "late")
	if err := Restore(t.Context(), dir, strings.NewReader(salvaged.String()[:salvaged.Len()-9])); err == nil {
		t.Error("restored half a backup")
	}
	if !errors.Is(second(Open(dir)), ErrDamaged) {
		t.Error("a failed restore settled the damage")
	}
	if err := Restore(t.Context(), dir, &salvaged); err != nil {
		t.Fatal(err)
	}
	l := open(t, dir)
	if got := dump(t, l); !maps.Equal(got, want) {
		t.Errorf("restored %v", got)
	}
	put(t, l, "late", late)
	if n, err := l.VerifyAudit(); n != 3 || err != nil {
		t.Errorf("audit after restoring: %d, %v", n, err)
	}
	rs, err := l.Audits(AuditFilter{Newest: true}, 0, 1)
	if err != nil || rs[0].Action != "ledger.restore" {
		t.Errorf("restoring is not in the audit log: %v, %v", rs, err)
	}
	if err := Restore(t.Context(), dir, strings.NewReader("")); !errors.Is(err, ErrLocked) {
		t.Errorf("restore over an open one: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Restore(t.Context(), dir, strings.NewReader("")); !errors.Is(err, ErrInvalid) {
		t.Errorf("restore over a good one: %v", err)
	}
}

func second(_ *Ledger, err error) error { return err }

func TestRestoreBackup(t *testing.T) {
	dir := t.TempDir()
	want := ruin(t, dir)
	var d *DamageError
	if !errors.As(second(Open(dir)), &d) {
		t.Fatal("not damaged")
	}
	f, err := os.Open(d.Backups[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Restore(t.Context(), dir, f); err != nil {
		t.Fatal(err)
	}
	delete(want, "late") // it is younger than the backup
	if got := dump(t, open(t, dir)); !maps.Equal(got, want) {
		t.Errorf("restored %v", got)
	}
}

// A backup with a changed byte does not restore.
func TestBackupChanged(t *testing.T) {
	l := open(t, t.TempDir())
	put(t, l, "a", "1", "b", "2")
	var b bytes.Buffer
	if err := l.Backup(&b); err != nil {
		t.Fatal(err)
	}
	for i := range b.Len() - 1 {
		bad := slices.Clone(b.Bytes())
		bad[i] ^= 1
		if i%9 != 0 {
			continue // each restore opens a database
		}
		if err := Restore(t.Context(), t.TempDir(), bytes.NewReader(bad)); err == nil {
			t.Fatalf("byte %d of %q", i, b.Bytes())
		}
	}
}

// What is missing as a whole is not taken for a new ledger.
func TestMissing(t *testing.T) {
	for _, names := range [][]string{{dbName}, {formatFile}, {dbName, headName}, {dbName + "/MANIFEST"}} {
		dir := t.TempDir()
		l := open(t, dir)
		put(t, l, "a", "1")
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := second(Open(dir)); !errors.Is(err, ErrDamaged) {
			t.Errorf("without %v: %v", names, err)
		}
	}
	// The head file can be made again from the database.
	dir := t.TempDir()
	l := open(t, dir)
	put(t, l, "a", "1")
	if err := errors.Join(l.Close(), os.Remove(filepath.Join(dir, headName))); err != nil {
		t.Fatal(err)
	}
	if got := dump(t, open(t, dir)); got["a"] != "1" {
		t.Errorf("without HEAD: %v", got)
	}
}

// An older copy of the database is not served as the newest.
func TestRollback(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	put(t, l, "a", "1")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	old := t.TempDir()
	copyDir(t, filepath.Join(dir, dbName), old)
	l = open(t, dir)
	put(t, l, "a", "2")
	if err := errors.Join(l.Close(), os.RemoveAll(filepath.Join(dir, dbName))); err != nil {
		t.Fatal(err)
	}
	copyDir(t, old, filepath.Join(dir, dbName))
	if err := second(Open(dir)); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "commits 2 to 2 are missing") {
		t.Errorf("rolled back: %v", err)
	}
}

func TestFormat(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	put(t, l, "a", "1")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, formatFile)
	if err := os.WriteFile(name, []byte("patronus ledger format 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := second(Open(dir)); !errors.Is(err, ErrNewer) {
		t.Errorf("newer: %v", err)
	}
	if text, err := os.ReadFile(name); err != nil || string(text) != "patronus ledger format 7\n" {
		t.Errorf("a newer ledger was touched: %q, %v", text, err)
	}
	if err := os.WriteFile(name, []byte(formatText+"1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	steps := 0
	failing := errors.New("failing")
	o := Options{steps: []step{func(string, *badger.DB) error { steps++; return failing }}}
	if err := second(o.Open(dir)); !errors.Is(err, failing) || steps != 1 {
		t.Errorf("migration: %v, %d steps", err, steps)
	}
	if got := dump(t, open(t, dir)); got["a"] != "1" {
		t.Errorf("after a failed migration: %v", got)
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if err := second(Open(dir)); !errors.Is(err, ErrLocked) {
		t.Error(err)
	}
}

// Below the reserve nothing is written; with space again, all goes on.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	var free atomic.Int64
	free.Store(1 << 40)
	o := Options{Reserve: 1 << 30, free: func(string) (int64, int64, error) { return free.Load(), 1 << 41, nil }}
	l, err := o.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	put(t, l, "a", "1")
	free.Store(1<<30 - 1)
	set := func(tx *Tx) error { return tx.Put("a", []byte("2")) }
	if err := l.Update(t.Context(), set); !errors.Is(err, ErrFull) {
		t.Errorf("update: %v", err)
	}
	if got := dump(t, l); got["a"] != "1" {
		t.Errorf("reading: %v", got)
	}
	free.Store(1 << 31)
	if err := l.Update(t.Context(), set); err != nil {
		t.Errorf("with space again: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	free.Store(1)
	if err := second(o.Open(dir)); !errors.Is(err, ErrFull) {
		t.Errorf("open: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, damageFile)); err == nil {
		t.Error("a full disk is not damage")
	}
}

// Run writes a backup within a period after a change, keeps three, and finds
// damage at its next look. Badger's tickers make long periods slow in a bubble.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const backup, scrub = time.Minute, 10 * time.Minute
		l, err := Options{backup: backup, scrub: scrub, free: func(string) (int64, int64, error) { return 1 << 40, 1 << 41, nil }}.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		for i := range 5 {
			put(t, l, "a", strconv.Itoa(i))
			time.Sleep(backup + time.Second)
			synctest.Wait()
			all := Backups(dir)
			if len(all) != min(i+1, keptBackups) || filepath.Base(all[0]) != fmt.Sprintf("%020d.jsonl", i+1) {
				t.Errorf("after %d changes: %v", i+1, all)
			}
		}
		time.Sleep(3 * backup)
		synctest.Wait()
		if newest := filepath.Base(Backups(dir)[0]); newest != fmt.Sprintf("%020d.jsonl", 5) {
			t.Errorf("without a change: %s", newest)
		}
		if err := l.Health(); err != nil {
			t.Error(err)
		}
		if err := l.db.Update(func(txn *badger.Txn) error { return txn.Delete([]byte("ka")) }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(scrub)
		synctest.Wait()
		if err := l.Health(); !errors.Is(err, ErrDamaged) {
			t.Errorf("health: %v", err)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}
