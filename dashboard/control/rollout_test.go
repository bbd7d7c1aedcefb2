package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"patronus/configs"
	"patronus/dashboard/auth"
)

// memory is a directory without a disk behind it: a thousand seeds write a lot.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "patronus-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func ten() []string {
	names := []string{"hq"}
	for i := range 9 {
		names = append(names, fmt.Sprintf("site%d", i+1))
	}
	return names
}

// managed adopts all sites, so that stages have them.
func (w *world) managed(t *testing.T) {
	t.Helper()
	w.round(t.Context(), true)
	w.clock = w.clock.Add(time.Minute)
	w.hurry()
	w.round(t.Context(), true)
	for i := range w.plane.Current().Network.Sites {
		if s := &w.plane.Current().Network.Sites[i]; !s.Managed {
			t.Fatalf("%s is not managed", s.Name)
		}
	}
}

// only makes the fabric's namespaces be one, by stages.
func (w *world) only(t *testing.T, name string, staged *Staged) (Revision, error) {
	t.Helper()
	return w.plane.Commit(t.Context(), auth.Actor{User: "alice"}, Change{
		Action: "create_namespace", Kind: "namespace", ID: name, Staged: staged,
		Edit: func(n *configs.Network) error {
			n.Namespaces = []configs.Namespace{{Name: name}}
			return nil
		},
	})
}

func (w *world) conductor(health func() Health) *Conductor {
	return NewConductor(ConductorOptions{Plane: w.plane, Progress: w.Progress, Health: health, Now: func() time.Time { return w.clock }})
}

// turn is what happens in a second.
func (w *world) turn(t *testing.T, c *Conductor) {
	t.Helper()
	w.clock = w.clock.Add(time.Second)
	w.round(t.Context(), false)
	if err := c.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (w *world) runs(name string) (n int) {
	for _, b := range w.boxes {
		if ns := b.namespaces(); len(ns) == 1 && ns[0].Name == name {
			n++
		}
	}
	return n
}

func TestRolloutByStages(t *testing.T) {
	w := newWorld(t, ten())
	w.managed(t)
	c := w.conductor(nil)
	rev, err := w.only(t, "blue", &Staged{Soak: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.only(t, "red", nil); !errors.Is(err, ErrRollout) {
		t.Errorf("a change during a rollout: %v", err)
	}
	seen := map[int]bool{}
	for range 40 {
		w.turn(t, c)
		seen[w.runs("blue")] = true
	}
	if r := w.plane.Rollout(); r.State != RolloutDone || r.Revision != rev.Number || w.runs("blue") != 10 {
		t.Errorf("%+v, %d sites", r, w.runs("blue"))
	}
	for _, n := range []int{1, 2, 10} {
		if !seen[n] {
			t.Errorf("never were just %d sites released: %v", n, seen)
		}
	}
	if len(seen) != 3 {
		t.Errorf("steps: %v", seen)
	}
}

func TestRolloutHaltsWhenTheFabricGetsWorse(t *testing.T) {
	for name, worse := range map[string]func(*Health){
		"a path goes down": func(h *Health) { h.PathsDown++ },
		"packets are lost": func(h *Health) { h.Loss += 2 },
		"flows are denied": func(h *Health) { h.Denied += 1000 },
	} {
		w := newWorld(t, ten()[:4])
		w.managed(t)
		h := Health{PathsDown: 1, Loss: 0.5, Denied: 50}
		c := w.conductor(func() Health { return h })
		for range 3 {
			w.turn(t, c)
		}
		if _, err := w.only(t, "bad", &Staged{Soak: 5 * time.Second}); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			if i == 2 {
				worse(&h)
			}
			w.turn(t, c)
		}
		r := w.plane.Rollout()
		if r.State != RolloutHalted || r.Why == "" || w.runs("bad") != 1 {
			t.Errorf("%s: %+v, %d sites", name, r, w.runs("bad"))
		}
		if _, err := w.plane.Abort(t.Context(), auth.Actor{User: "alice"}); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			w.turn(t, c)
		}
		if w.runs("bad") != 0 || w.plane.Rollout().State != RolloutAborted {
			t.Errorf("%s: after the abort %d sites, %+v", name, w.runs("bad"), w.plane.Rollout())
		}
		if _, err := w.only(t, "good", nil); err != nil {
			t.Errorf("%s: the next change: %v", name, err)
		}
	}
}

// A thousand rollouts with three of ten sites out of reach, pauses, aborts and
// restarts of the dashboard at any moment (R19): a site runs what it had or what
// it was to get, never what it was not released for; what the dashboard says of a
// site is so; and when all are back, all are the same.
func TestR19RolloutsWithSitesAway(t *testing.T) {
	seeds := uint64(100)
	if os.Getenv("PATRONUS_LONG") != "" {
		seeds = 1000
	}
	t.Setenv("TMPDIR", memory(t))
	names := ten()
	w := newWorld(t, names)
	w.managed(t)
	c := w.conductor(nil)
	base, mixed, sevenOfTen := "", 0, 0
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 19))
		next := fmt.Sprintf("n%d", seed)
		perm := rng.Perm(len(names))
		away := map[string]bool{}
		for _, i := range perm[:3] {
			away[names[i]] = true
			w.boxes[names[i]].away = true
		}
		rev, err := w.only(t, next, &Staged{Soak: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		w.hurry()
		aborted := false
		check := func() {
			t.Helper()
			r := w.plane.Rollout()
			progress := w.Progress()
			for name, b := range w.boxes {
				has := ""
				if ns := b.namespaces(); len(ns) == 1 {
					has = ns[0].Name
				}
				switch {
				case has != base && has != next:
					mixed++
					t.Fatalf("seed %d: %s runs %q, neither %q nor %q", seed, name, has, base, next)
				case has == next && !aborted && !r.Released(name):
					t.Fatalf("seed %d: %s was not released", seed, name)
				case progress[name].Revision == rev.Number && has != next && !aborted:
					t.Fatalf("seed %d: the dashboard says that %s has revision %d", seed, name, rev.Number)
				}
			}
		}
		for range 10 + rng.IntN(8) {
			switch rng.IntN(12) {
			case 0:
				_, err = w.plane.Pause(t.Context(), auth.Actor{User: "alice"})
			case 1, 2:
				_, err = w.plane.Resume(t.Context(), auth.Actor{User: "alice"})
			case 3:
				if rng.IntN(8) == 0 && !aborted {
					_, err = w.plane.Abort(t.Context(), auth.Actor{User: "alice"})
					aborted = err == nil
				}
			case 4: // another dashboard process over the same ledger
				o := w.Distributor.o
				if o.Plane, err = Open(t.Context(), o.Ledger, nil, o.Now); err == nil {
					w.plane, w.Distributor = o.Plane, NewDistributor(o)
					c = w.conductor(nil)
				}
			}
			if err != nil && !errors.Is(err, ErrNoRollout) {
				t.Fatal(err)
			}
			w.turn(t, c)
			check()
		}
		if w.runs(next) == 7 {
			sevenOfTen++
		}
		// All return: the rollout ends, and so does every difference.
		for name := range away {
			w.boxes[name].away = false
		}
		_, _ = w.plane.Resume(t.Context(), auth.Actor{User: "alice"}) // an error is that it has ended
		for i := 0; i < 60 && (w.plane.Rollout().InProgress() || w.runs(base) > 0 && w.runs(next) > 0 || i < 2); i++ {
			w.hurry()
			w.turn(t, c)
			check()
		}
		want := next
		if aborted {
			want = base
		}
		if n := w.runs(want); n != 10 && want != "" {
			t.Fatalf("seed %d: %d of 10 sites run %q in the end: %+v", seed, n, want, w.plane.Rollout())
		}
		base = want
	}
	line, err := json.Marshal(map[string]any{"id": "R19", "runs": seeds, "mixed": mixed, "seven_of_ten": sevenOfTen, "bar": 0, "pass": mixed == 0})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", line)
}

// Two dashboards on two sides of a partition, both with a term: a site takes from
// the older one nothing once it has heard of the newer one, and afterwards all
// run what the newer one says (R16).
func TestR16TwoDashboards(t *testing.T) {
	t.Setenv("TMPDIR", memory(t))
	names := ten()
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 16))
		w := newWorld(t, names)
		w.managed(t)
		// The other side: its own ledger, the next term, certified by the same root.
		other := newWorld(t, names)
		other.pen = &pen{root: w.pen.root, key: configs.GenerateRootKey(), term: 3}
		other.Distributor.o.Signer = other.pen
		left := map[string]bool{}
		for _, n := range names {
			left[n] = rng.IntN(2) == 0
		}
		var mu sync.Mutex // sites are pushed to side by side
		leaks := func() bool {
			mu.Lock()
			defer mu.Unlock()
			return rng.IntN(3) == 0
		}
		reach := func(side bool) func(string) Site {
			return func(site string) Site {
				if b := w.boxes[site]; left[site] == side || leaks() {
					return b
				}
				return &box{away: true}
			}
		}
		w.Distributor.o.Reach, other.Distributor.o.Reach = reach(true), reach(false)
		newest := map[string]uint64{}
		check := func() {
			t.Helper()
			for name, b := range w.boxes {
				if e := b.store.Current().Epoch; e < newest[name] {
					t.Fatalf("seed %d: %s went back from term %d to %d", seed, name, newest[name], e)
				} else {
					newest[name] = e
				}
			}
		}
		for i := range 6 {
			w.change(t, fmt.Sprintf("old%d", i))
			other.change(t, fmt.Sprintf("new%d", i))
			for _, d := range []*world{w, other} {
				d.hurry()
				d.round(t.Context(), true)
				check()
			}
		}
		// It heals.
		all := func(site string) Site { return w.boxes[site] }
		w.Distributor.o.Reach, other.Distributor.o.Reach = all, all
		for _, d := range []*world{other, w, other, w} {
			d.clock = d.clock.Add(10 * time.Minute)
			d.hurry()
			d.round(t.Context(), true)
			check()
		}
		for name, b := range w.boxes {
			if b.store.Current().Epoch != 3 || !slices.ContainsFunc(b.namespaces(), func(n configs.Namespace) bool { return n.Name == "new5" }) {
				t.Errorf("seed %d: %s runs term %d", seed, name, b.store.Current().Epoch)
			}
		}
	}
}
