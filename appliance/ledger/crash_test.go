package ledger

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func tempDir(t *rapid.T) string {
	dir, err := os.MkdirTemp("", "ledger-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

const (
	childEnv = "PATRONUS_LEDGER_CHILD"
	childDir = "PATRONUS_LEDGER_DIR"
)

// child runs what a test started this binary again for, and exits.
func child() {
	dir := os.Getenv(childDir)
	switch os.Getenv(childEnv) {
	case "":
		return
	case "write":
		write(dir)
	case "read":
		read(dir)
	}
	os.Exit(0)
}

// valueOf is a value that its key and number tell, of various lengths.
func valueOf(key string, n int) string {
	return strings.Repeat(fmt.Sprintf("%s=%d;", key, n), 1+n*7%40)
}

// write commits until it is killed. Commit n sets n, and one key of ten, and
// tells n when it is acknowledged.
func write(dir string) {
	l, err := Options{memTable: 1 << 20, Reserve: 1}.Open(dir)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for n := int(l.Commits()) + 1; ; n++ {
		key := "key/" + strconv.Itoa(n%10)
		if err := l.Update(context.Background(), func(tx *Tx) error {
			return errors.Join(tx.Put("n", []byte(strconv.Itoa(n))), tx.Put(key, []byte(valueOf(key, n))),
				tx.Audit(AuditRecord{User: "u", Action: "write", ResourceID: strconv.Itoa(n)}))
		}); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println(n)
	}
}

// outcome is what a child saw of a ledger.
type outcome struct {
	Err     string
	Damaged bool
	Values  map[string]string
	Audits  uint64
}

// read tells everything that can be read.
func read(dir string) {
	var o outcome
	l, err := Options{memTable: 1 << 20, Reserve: 1}.Open(dir)
	if err == nil {
		o.Values = map[string]string{}
		err = l.View(func(tx *Tx) error {
			return tx.Scan("", "", func(key string, v []byte) bool { o.Values[key] = string(v); return true })
		})
		if err == nil {
			o.Audits, err = l.VerifyAudit()
		}
		err = errors.Join(err, l.Close())
	}
	if err != nil {
		o.Err, o.Damaged = err.Error(), errors.Is(err, ErrDamaged) || errors.Is(err, ErrAudit)
	}
	_ = json.NewEncoder(os.Stdout).Encode(o)
}

func start(t testing.TB, what, dir string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childEnv+"="+what, childDir+"="+dir)
	return cmd
}

func readIn(t testing.TB, dir string) (outcome, error) {
	out, err := start(t, "read", dir).Output()
	if err != nil {
		return outcome{}, err
	}
	var o outcome
	return o, json.Unmarshal(out, &o)
}

// What was acknowledged is there after a kill, whole, and the chain with it.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	total := 0
	for round := range 8 {
		cmd := start(t, "write", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acked, until := 0, 5+rand.IntN(60)
		var kill *time.Timer
		for s, n := bufio.NewScanner(out), 0; s.Scan(); n++ {
			if acked, err = strconv.Atoi(s.Text()); err != nil {
				t.Fatalf("child: %s", s.Text())
			}
			if n == until { // some random instant within the next commits
				kill = time.AfterFunc(time.Duration(rand.IntN(3000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
			}
		}
		_ = cmd.Wait()
		if kill == nil {
			t.Fatal("the child ended on its own")
		}
		o, err := readIn(t, dir)
		if err != nil || o.Err != "" {
			t.Fatalf("round %d: %v %s", round, err, o.Err)
		}
		n, err := strconv.Atoi(o.Values["n"])
		if err != nil || n < acked || n > acked+1 {
			t.Fatalf("round %d: holds commit %d, acknowledged were %d", round, n, acked)
		}
		for i := n; i > max(0, n-10); i-- {
			key := "key/" + strconv.Itoa(i%10)
			if o.Values[key] != valueOf(key, i) {
				t.Fatalf("round %d: %s is %.40q", round, key, o.Values[key])
			}
		}
		if o.Audits != uint64(n) {
			t.Fatalf("round %d: %d audit records of %d commits", round, o.Audits, n)
		}
		total = n
	}
	t.Logf("%d commits over 8 kills", total)
}

// A damaged file makes Open refuse, or makes no difference: never a panic,
// never a value that was not the newest, never a missing key.
func TestDamagedFiles(t *testing.T) {
	good := t.TempDir()
	l, err := Options{memTable: 1 << 20, Reserve: 1}.Open(good)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for n := range 300 {
		key := "key/" + strconv.Itoa(n%40)
		// Hardly compressible, so that memtables fill and tables are written.
		v := make([]byte, 4000)
		r := rand.New(rand.NewPCG(uint64(n), 1))
		for i := range v {
			v[i] = 'a' + byte(r.IntN(26))
		}
		want[key] = string(v)
		put(t, l, key, string(v))
		if err := l.Update(t.Context(), func(tx *Tx) error { return tx.Audit(AuditRecord{User: "u", Action: "a"}) }); err != nil {
			t.Fatal(err)
		}
		if n == 200 {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if l, err = (Options{memTable: 1 << 20, Reserve: 1}).Open(good); err != nil {
				t.Fatal(err)
			}
		}
	}
	// As a killed process leaves it: the log is not yet in a table.
	img := t.TempDir()
	copyDir(t, good, img)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	var refused, right int
	tries := 2
	if testing.Short() {
		tries = 1
	}
	for _, name := range filesOf(t, img) {
		if strings.HasSuffix(name, lockName) {
			continue
		}
		for try := range 2 * tries {
			dir := t.TempDir()
			copyDir(t, img, dir)
			what := damage(t, filepath.Join(dir, name), try%2 == 0, r)
			o, err := readIn(t, dir)
			switch {
			case err != nil:
				t.Errorf("%s, %s: the process died: %v", name, what, stderr(err))
			case o.Err != "" && !o.Damaged:
				t.Errorf("%s, %s: refused without calling it damage: %s", name, what, o.Err)
			case o.Err != "":
				refused++
			default:
				right++
				for key, v := range want {
					if o.Values[key] != v {
						t.Errorf("%s, %s: wrong value of %s", name, what, key)
					}
				}
				if len(o.Values) != len(want) || o.Audits != 300 {
					t.Errorf("%s, %s: %d values, %d audit records", name, what, len(o.Values), o.Audits)
				}
			}
		}
	}
	t.Logf("refused %d, right %d", refused, right)
	if refused == 0 {
		t.Error("no damage was found at all")
	}
}

func stderr(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Sprintf("%v: %.600s", err, exit.Stderr)
	}
	return err.Error()
}

// damage flips one bit or cuts a file, within what was written of it.
func damage(t testing.TB, name string, flip bool, r *rand.Rand) string {
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	used := len(data)
	for used > 0 && data[used-1] == 0 {
		used--
	}
	if used == 0 {
		return "nothing written"
	}
	at := r.IntN(used)
	what := fmt.Sprintf("cut at %d of %d", at, len(data))
	if flip {
		bit := r.IntN(8)
		data[at] ^= 1 << bit
		what = fmt.Sprintf("bit %d of byte %d of %d", bit, at, len(data))
	} else {
		data = data[:at]
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return what
}

func filesOf(t testing.TB, dir string) (names []string) {
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func copyDir(t testing.TB, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}
