package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// damagedDir names the directory of a child process of TestDamage.
const damagedDir = "STORE_DAMAGED_DIR"

// damageAll, if set, tries each damage instead of a draw.
const damageAll = "STORE_DAMAGE_ALL"

const (
	damagedPaths = 3
	damagedHours = 3
	damagedStep  = 10_000
)

// pristine makes a small store with sealed and unsealed parts. If it was
// killed, what is on the disk is as a crash leaves it.
func pristine(t *testing.T, killed bool) string {
	t.Helper()
	dir := t.TempDir()
	c := &clock{noon}
	free := func(string) (uint64, uint64, error) { return 1 << 40, 1 << 41, nil }
	s, err := Open(dir, Options{Now: c.now, Free: free})
	if err != nil {
		t.Fatal(err)
	}
	for h := range int64(damagedHours) {
		appendAll(t, s, hourOf(damagedPaths, noon+h*hourMs, damagedStep))
	}
	for n := range 40 {
		at := noon + int64(n)*minuteMs
		appendAll(t, s, Batch{Site: "hq", At: at, Flows: []FlowRecord{flowAt(n, at)}, Events: []Event{{ID: fmt.Sprint("e", n), At: at, Type: "x"}}})
	}
	c.ms = noon + (damagedHours-1)*hourMs + minuteMs
	if err := s.Seal(); err != nil {
		t.Fatal(err)
	}
	if !killed {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return copied
}

// damage is one way to harm one file.
type damage struct {
	file string
	cut  int64 // bytes that are left, or -1
	bit  int64 // that is flipped, or -1
}

func (d damage) String() string { return fmt.Sprintf("%s cut %d bit %d", d.file, d.cut, d.bit) }

func (d damage) do(dir string) error {
	name := filepath.Join(dir, d.file)
	if d.cut >= 0 {
		return os.Truncate(name, d.cut)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	b[d.bit/8] ^= 1 << (d.bit % 8)
	return os.WriteFile(name, b, 0o600)
}

// damages lists a cut at each 4 KiB and bit flips for each file. Of a file that
// was preallocated, what is behind its content is harmed three times only.
func damages(t *testing.T, dir string, rng *rand.Rand) (out []damage) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Base(name) == ballastFile || filepath.Base(name) == "LOCK" {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		used := int64(len(bytes.TrimRight(b, "\x00")))
		for at := int64(0); at < int64(len(b)); at += 4096 {
			if at <= used+2*4096 {
				out = append(out, damage{name, at, -1})
			}
		}
		flips := 2
		if used > 100<<10 {
			flips = 12
		}
		for range flips {
			if used > 0 {
				out = append(out, damage{name, -1, rng.Int64N(used * 8)})
			}
		}
		if int64(len(b)) > used {
			out = append(out, damage{name, -1, used*8 + rng.Int64N((int64(len(b))-used)*8)})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestDamage harms each file of a small store in turn. Opening it must give
// right values or none, in a process that stays alive.
func TestDamage(t *testing.T) {
	if dir := os.Getenv(damagedDir); dir != "" {
		checkDamaged(t, dir)
		return
	}
	rng := rand.New(rand.NewPCG(7, 11))
	for _, killed := range []bool{false, true} {
		t.Run(map[bool]string{false: "closed", true: "killed"}[killed], func(t *testing.T) {
			dir := pristine(t, killed)
			all := damages(t, dir, rng)
			if os.Getenv(damageAll) == "" {
				rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
				all = all[:min(20, len(all))]
			}
			complete, partial := 0, 0
			for _, d := range all {
				harmed := filepath.Join(t.TempDir(), "s")
				if err := os.CopyFS(harmed, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
				if err := d.do(harmed); err != nil {
					t.Fatal(err)
				}
				cmd := exec.CommandContext(context.Background(), os.Args[0], "-test.run=^TestDamage$", "-test.v")
				cmd.Env = append(os.Environ(), damagedDir+"="+harmed)
				out, err := cmd.CombinedOutput()
				switch {
				case err != nil:
					t.Errorf("%v: %v\n%s", d, err, out)
				case strings.Contains(string(out), "complete"):
					complete++
				default:
					partial++
					if !strings.Contains(string(out), "told") {
						t.Errorf("%v: something is missing and nothing says so\n%s", d, out)
					}
				}
				if err := os.RemoveAll(harmed); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("%d damaged stores: %d complete, %d with right values in part", len(all), complete, partial)
		})
	}
}

// checkDamaged opens a store and compares whatever it serves.
func checkDamaged(t *testing.T, dir string) {
	c := &clock{noon + damagedHours*hourMs}
	s := open(t, dir, Options{Now: c.now})
	missing := 0
	told := s.Damaged() > 0
	check := func() {
		t.Helper()
		for n := range damagedPaths {
			got := 0
			for sm, err := range s.Samples(series(n), noon, noon+damagedHours*hourMs) {
				if errors.Is(err, ErrDamaged) {
					told = true
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if sm != synthetic(n, sm.At) {
					t.Fatalf("path %d: wrong value: %+v", n, sm)
				}
				got++
			}
			missing += damagedHours*int(hourMs)/damagedStep - got
			for p, err := range s.Range(Query{Series: series(n), Metric: MTU, From: noon, To: noon + damagedHours*hourMs, Tier: Hour}) {
				if err == nil && p.Mean != 1420 {
					t.Fatalf("path %d: wrong rollup: %+v", n, p)
				}
			}
		}
		flows := allFlows(t, s, FlowFilter{Latest: true}, 1000)
		for _, f := range flows {
			if n := int((f.At - noon) / minuteMs); f.ID != flowAt(n, f.At).ID {
				t.Fatalf("wrong flow: %+v", f)
			}
		}
		events, _, err := s.Events(EventFilter{Type: "x"}, Page{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.ID != fmt.Sprint("e", (e.At-noon)/minuteMs) {
				t.Fatalf("wrong event: %+v", e)
			}
		}
		missing += 80 - len(flows) - len(events)
		if _, err := s.Records(0, s.Head(), false, 1000); err != nil {
			t.Fatal(err)
		}
	}
	check()
	// It must be of use, too.
	appendAll(t, s, hourOf(damagedPaths, noon+(damagedHours+1)*hourMs, damagedStep))
	c.ms += 3 * hourMs
	if err := s.Seal(); err != nil {
		t.Fatal(err)
	}
	check()
	for n := range damagedPaths {
		wantSamples(t, s, n, noon+(damagedHours+1)*hourMs, noon+(damagedHours+2)*hourMs, damagedStep)
	}
	told = told || s.Damaged() > 0 || s.Stats().Lost > 0
	if e, _, err := s.Events(EventFilter{Type: "store_damaged"}, Page{}); err != nil || len(e) > 0 {
		told = true
	}
	switch {
	case missing == 0:
		fmt.Println("complete")
	case told:
		fmt.Println("partial, told")
	default:
		fmt.Println("partial:", missing, "values are missing")
	}
}
