package slot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"patronus/image/release"
)

func TestNames(t *testing.T) {
	for name, want := range map[string]Entry{
		"patronus-7.efi":     {Seq: 7},
		"patronus-7+3.efi":   {Seq: 7, Trial: true, Left: 3},
		"patronus-7+2-1.efi": {Seq: 7, Trial: true, Left: 2, Done: 1},
		"patronus-7+0-3.efi": {Seq: 7, Trial: true, Done: 3},
	} {
		got, ok := Parse(name)
		if !ok || got != want || got.Name() != name {
			t.Errorf("%s: %+v %v %s", name, got, ok, got.Name())
		}
	}
	for _, name := range []string{"", unfinished, "patronus-.efi", "patronus-0.efi", "patronus-x.efi", "patronus-1+.efi", "patronus-1+-1.efi", "patronus-1+1-.efi", "patronus-1", "other-1.efi", "patronus--1.efi"} {
		if e, ok := Parse(name); ok {
			t.Errorf("%q is read as %+v", name, e)
		}
	}
}

func TestOrder(t *testing.T) {
	got := Entries([]string{"patronus-9+0-3.efi", "README", "patronus-5.efi", "patronus-7+1-2.efi", unfinished})
	want := []Entry{{Seq: 7, Trial: true, Left: 1, Done: 2}, {Seq: 5}, {Seq: 9, Trial: true, Done: 3}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

// power is spent by every step that reaches the disk; without any the machine
// is off.
type power struct{ left int }

var errOff = errors.New("power is off")

func (p *power) spend() error {
	if p.left <= 0 {
		return errOff
	}
	p.left--
	return nil
}

// disk is a Dir that loses power in the middle of things.
type disk struct {
	files map[string][]byte
	power *power
	cut   int // how a step that is cut leaves things
}

func (d *disk) List() ([]string, error) { return slices.Sorted(maps.Keys(d.files)), nil }

func (d *disk) Remove(name string) error {
	if err := d.power.spend(); err != nil {
		if d.cut%2 == 0 {
			delete(d.files, name)
		}
		return err
	}
	delete(d.files, name)
	return nil
}

func (d *disk) Rename(from, to string) error {
	data, ok := d.files[from]
	if !ok {
		return fmt.Errorf("no %s", from)
	}
	if err := d.power.spend(); err != nil {
		switch d.cut % 3 { // the new name, both, or neither is on the disk
		case 0:
			d.files[to] = data
		case 1:
			delete(d.files, from)
		}
		return err
	}
	d.files[to] = data
	delete(d.files, from)
	return nil
}

func (d *disk) Create(name string, r io.Reader) error {
	data, err := io.ReadAll(r)
	if err == nil {
		err = d.power.spend()
	}
	if err != nil {
		d.files[name] = data[:len(data)*(d.cut%5)/5]
		return err
	}
	d.files[name] = data
	return nil
}

func (d *disk) Open(name string) (io.ReadCloser, error) {
	data, ok := d.files[name]
	if !ok {
		return nil, fmt.Errorf("no %s", name)
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// box is a machine: its disk, what is durable of its state, and the loader.
type box struct {
	disk   *disk
	saved  State
	key    *release.Key
	good   map[uint64]bool // images that work
	images map[uint64][]byte
}

func newBox(t interface{ Fatal(...any) }, key *release.Key) *box {
	b := &box{disk: &disk{files: map[string][]byte{}, power: &power{left: 1 << 30}}, key: key, good: map[uint64]bool{}, images: map[uint64][]byte{}}
	b.image(1, true)
	b.disk.files[Entry{Seq: 1}.Name()] = b.images[1]
	b.saved.Floor = 1
	return b
}

func (b *box) image(seq uint64, good bool) []byte {
	b.images[seq] = fmt.Appendf(nil, "image %d, which is a few bytes long", seq)
	b.good[seq] = good
	var file bytes.Buffer
	if err := release.Write(&file, b.key, release.Info{Arch: "amd64", Version: fmt.Sprint("v", seq), Seq: seq}, b.images[seq]); err != nil {
		panic(err)
	}
	return file.Bytes()
}

func (b *box) machine(seq uint64) *Machine {
	state := b.saved
	return &Machine{
		Dir: b.disk, Running: release.Info{Arch: "amd64", Seq: seq}, Trusted: release.Keys{b.key.Public()}, State: &state,
		Save: func(s *State) error {
			if err := b.disk.power.spend(); err != nil {
				if b.disk.cut%2 == 0 {
					b.saved = *s
				}
				return err
			}
			b.saved = *s
			return nil
		},
	}
}

// boot is the firmware and the loader: it counts down, and returns what runs
// in the end. A damaged image does not start.
func (b *box) boot(t interface{ Fatalf(string, ...any) }) uint64 {
	b.disk.power.left = 1 << 30
	for range 20 {
		names, _ := b.disk.List()
		entries := Entries(names)
		if len(entries) == 0 {
			t.Fatalf("nothing to start: %v", names)
		}
		e := entries[0]
		if e.failed() {
			t.Fatalf("only failed images are left: %v", names)
		}
		if e.Trial {
			next := Entry{Seq: e.Seq, Trial: true, Left: e.Left - 1, Done: e.Done + 1}
			data := b.disk.files[e.Name()]
			delete(b.disk.files, e.Name())
			b.disk.files[next.Name()] = data
			e = next
		}
		if !bytes.Equal(b.disk.files[e.Name()], b.images[e.Seq]) {
			if !e.Trial {
				t.Fatalf("a blessed image is damaged: %s", e.Name())
			}
			continue
		}
		if !b.good[e.Seq] {
			continue // it crashes and the machine starts again
		}
		return e.Seq
	}
	t.Fatalf("it starts for ever")
	return 0
}

func TestUpdate(t *testing.T) {
	key := release.GenerateKey()
	b := newBox(t, key)
	file := b.image(2, true)
	var last int64
	m := b.machine(1)
	if _, err := m.Install(t.Context(), bytes.NewReader(file), Options{DryRun: true}); err != nil || len(b.disk.files) != 1 {
		t.Fatal("dry run:", err, len(b.disk.files))
	}
	if _, err := m.Install(t.Context(), bytes.NewReader(file), Options{Tries: 3, Progress: func(done, _ int64) { last = done }}); err != nil {
		t.Fatal(err)
	}
	if last != int64(len(b.images[2])) || b.disk.files["patronus-2+3.efi"] == nil {
		t.Fatal(last, b.disk.files)
	}
	if got := b.boot(t); got != 2 {
		t.Fatal("runs", got)
	}
	m = b.machine(2)
	if trial, err := m.Tidy(); err != nil || !trial {
		t.Fatal(trial, err)
	}
	if _, err := m.Install(t.Context(), bytes.NewReader(b.image(3, true)), Options{}); !errors.Is(err, ErrOnTrial) {
		t.Error("update while on trial:", err)
	}
	if err := m.Bless(); err != nil {
		t.Fatal(err)
	}
	if b.disk.files["patronus-2.efi"] == nil || b.disk.files["patronus-1.efi"] == nil || b.saved.Floor != 2 || b.saved.Trial != nil {
		t.Fatal(b.disk.files, b.saved)
	}
	if _, err := b.machine(2).Install(t.Context(), bytes.NewReader(b.image(1, true)), Options{}); !errors.Is(err, release.ErrOlder) {
		t.Error("older:", err)
	}
}

func TestFallBack(t *testing.T) {
	for _, c := range []struct {
		name   string
		crash  bool
		reject bool
	}{{"crashes", true, false}, {"is not healthy", false, true}} {
		key := release.GenerateKey()
		b := newBox(t, key)
		if _, err := b.machine(1).Install(t.Context(), bytes.NewReader(b.image(2, !c.crash)), Options{Tries: 2}); err != nil {
			t.Fatal(err)
		}
		if c.reject {
			if got := b.boot(t); got != 2 {
				t.Fatal(got)
			}
			if err := b.machine(2).Reject("no path came up"); err != nil {
				t.Fatal(err)
			}
		}
		if got := b.boot(t); got != 1 {
			t.Fatalf("%s: %d runs", c.name, got)
		}
		m := b.machine(1)
		if trial, err := m.Tidy(); err != nil || trial || b.saved.Failed == nil || b.saved.Failed.Seq != 2 || b.saved.Trial != nil {
			t.Errorf("%s: %v %v %+v", c.name, trial, err, b.saved)
		}
		if _, err := m.Install(t.Context(), bytes.NewReader(b.image(2, true)), Options{NotAgain: true}); !errors.Is(err, ErrGivenUp) {
			t.Errorf("%s: tried again: %v", c.name, err)
		}
		// The next one may be tried.
		if _, err := m.Install(t.Context(), bytes.NewReader(b.image(3, true)), Options{Tries: 1}); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := b.boot(t); got != 3 {
			t.Errorf("%s: %d runs", c.name, got)
		}
	}
}

// Whenever the power goes, and however often, during updates to good and bad
// images: the box always starts something that works, never something older
// than what it had blessed, and gets to the newest good image in the end.
func TestPowerCutAnywhere(t *testing.T) {
	key := release.GenerateKey()
	rapid.Check(t, func(t *rapid.T) {
		b := newBox(t, key)
		blessed := uint64(1)
		step := func(cut bool, f func() error) (off bool) {
			b.disk.power.left = 1 << 30
			if cut {
				b.disk.power.left = rapid.IntRange(0, 6).Draw(t, "power")
				b.disk.cut = rapid.IntRange(0, 29).Draw(t, "how")
			}
			err := f()
			if err != nil && !errors.Is(err, errOff) {
				t.Fatalf("failed with power: %v", err)
			}
			return errors.Is(err, errOff)
		}
		for seq := uint64(2); seq < uint64(2+rapid.IntRange(1, 4).Draw(t, "updates")); seq++ {
			file := b.image(seq, rapid.Bool().Draw(t, "good"))
			for range 4 {
				running := b.boot(t)
				if running < blessed {
					t.Fatalf("%d runs, %d was blessed", running, blessed)
				}
				m := b.machine(running)
				cut := rapid.Bool().Draw(t, "cut")
				if step(cut, func() error {
					trial, err := m.Tidy()
					if err != nil || !trial {
						return err
					}
					return m.Bless()
				}) {
					continue
				}
				blessed = max(blessed, running)
				if running == seq {
					break
				}
				step(cut, func() error {
					_, err := m.Install(t.Context(), bytes.NewReader(file), Options{Tries: rapid.IntRange(1, 3).Draw(t, "tries")})
					return err
				})
			}
		}
		final := b.image(100, true)
		running := b.boot(t)
		m := b.machine(running)
		if _, err := m.Tidy(); err != nil {
			t.Fatal(err)
		}
		if err := m.Bless(); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Install(t.Context(), bytes.NewReader(final), Options{Tries: 1}); err != nil {
			t.Fatal(err)
		}
		if got := b.boot(t); got != 100 {
			t.Fatalf("%d runs in the end", got)
		}
	})
}

func TestJudge(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	all := Expectation{Configured: true, Paths: true, Dashboard: true}
	well := Health{Running: true, PathsUp: 1, Dashboard: true}
	j := NewJudge(all, start)
	for _, s := range []struct {
		after time.Duration
		see   Health
		want  Judgement
	}{
		{0, Health{}, Wait},
		{5 * time.Second, well, Wait},
		{14 * time.Second, well, Wait},
		{14500 * time.Millisecond, Health{Running: true, Dashboard: true}, Wait}, // a break begins anew
		{16 * time.Second, well, Wait},
		{25 * time.Second, well, Wait},
		{26 * time.Second, well, Keep},
	} {
		if got, why := j.Observe(s.see, at(s.after)); got != s.want {
			t.Errorf("after %s: %v (%s), want %v", s.after, got, why, s.want)
		}
	}
	for want, h := range map[string]Health{
		"the gateway does not run within 5m0s":     {},
		"no path came up within 5m0s":              {Running: true},
		"the dashboard is not reached within 5m0s": {Running: true, PathsUp: 2},
	} {
		j := NewJudge(all, start)
		if got, why := j.Observe(h, at(Patience)); got != GiveUp || why != want {
			t.Errorf("%v %q, want %q", got, why, want)
		}
	}
	j = NewJudge(Expectation{}, start)
	j.Observe(Health{}, start)
	if got, _ := j.Observe(Health{}, at(Hold)); got != Keep {
		t.Errorf("nothing expected: %v", got)
	}
}

func TestState(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image", "state.json")
	s, err := LoadState(file)
	if err != nil || *s != (State{}) {
		t.Fatal(s, err)
	}
	s.Floor, s.Trial = 5, &Trial{Seq: 6, Version: "v6", InstalledAt: time.Unix(5, 0).UTC()}
	if err := SaveState(file, s); err != nil {
		t.Fatal(err)
	}
	got, err := LoadState(file)
	if err != nil || got.Floor != 5 || *got.Trial != *s.Trial {
		t.Errorf("%+v %v", got, err)
	}
}

func TestOSDir(t *testing.T) {
	d := OSDir(t.TempDir())
	if err := d.Create("a", bytes.NewReader([]byte("data"))); err != nil {
		t.Fatal(err)
	}
	if err := d.Rename("a", "b"); err != nil {
		t.Fatal(err)
	}
	f, err := d.Open("b")
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(f)
	if err != nil || string(data) != "data" {
		t.Error(string(data), err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(d.Remove("b"), d.Remove("b")); err != nil {
		t.Error(err)
	}
	if names, err := d.List(); err != nil || len(names) != 0 {
		t.Error(names, err)
	}
}
