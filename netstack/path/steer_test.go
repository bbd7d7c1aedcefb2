package path_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"patronus/configs"
	"patronus/netstack/path"
)

// cand builds a candidate of a one-class world; score also stands for the rank.
func cand(i int, s path.State, score path.Score, group uint8, opt ...func(*path.Candidate)) path.Candidate {
	c := path.Candidate{Index: i, ID: path.ID(fmt.Sprint("p", i)), State: s, Class: make([]path.Standing, 5)}
	for j := range c.Class {
		c.Class[j] = path.Standing{Score: max(score, 0), Rank: path.Rank(score), Group: group, Floor: path.NoScore, Ceil: path.NoScore}
		if s == path.Unknown {
			c.Class[j].Score = path.NoScore
		}
	}
	for _, f := range opt {
		f(&c)
	}
	return c
}

func each(f func(*path.Standing)) func(*path.Candidate) {
	return func(c *path.Candidate) {
		for j := range c.Class {
			f(&c.Class[j])
		}
	}
}

var (
	violates   = each(func(s *path.Standing) { s.Violates = true })
	settled    = each(func(s *path.Standing) { s.Settled, s.Floor, s.Ceil = true, s.Score, s.Score })
	suppressed = func(c *path.Candidate) { c.Suppressed = true }
)

func TestSteer(t *testing.T) {
	loose := classes(t).Class(4)
	strict := classes(t, configs.Class{Name: path.DefaultClass, Strict: true, Prefer: [][]string{{"wan0"}}}).Class(4)
	const up, down, unknown = path.Up, path.Down, path.Unknown
	for _, c := range []struct {
		name    string
		class   *path.Class
		cands   []path.Candidate
		current int
		want    int
		why     path.Why
	}{
		{"none", loose, nil, -1, -1, path.WhyNone},
		{"only one", loose, []path.Candidate{cand(7, up, 100, 0)}, -1, 7, path.WhyBest},
		{"clearly best", loose, []path.Candidate{cand(0, up, 80, 0), cand(1, up, 100, 0)}, -1, 1, path.WhyBest},
		{"preference before score", loose, []path.Candidate{cand(0, up, 60, 0), cand(1, up, 100, 1)}, -1, 0, path.WhyBest},
		{"first group that meets the sla", loose, []path.Candidate{cand(0, up, 60, 0, violates), cand(1, up, 90, 1)}, -1, 1, path.WhyBest},
		{"sticky", loose, []path.Candidate{cand(0, up, 60, 0), cand(1, up, 100, 0)}, 0, 0, path.WhySticky},
		{"sticky though degraded", loose, []path.Candidate{cand(0, path.Degraded, 60, 0), cand(1, up, 100, 0)}, 0, 0, path.WhySticky},
		{"sticky though not measured", loose, []path.Candidate{cand(0, unknown, 0, 0), cand(1, up, 100, 0)}, 0, 0, path.WhySticky},
		{"down moves", loose, []path.Candidate{cand(0, down, 0, 0), cand(1, up, 100, 1)}, 0, 1, path.WhyDown},
		{"violation moves", loose, []path.Candidate{cand(0, up, 10, 0, violates), cand(1, up, 50, 1)}, 0, 1, path.WhyViolation},
		{"violation, nothing better", loose, []path.Candidate{cand(0, up, 10, 0, violates), cand(1, up, 19, 0, violates)}, 0, 0, path.WhySticky},
		{"violation, much better violator", loose, []path.Candidate{cand(0, up, -400, 0, violates), cand(1, up, -20, 0, violates)}, 0, 1, path.WhyBestOfWorst},
		{"best of the worst", loose, []path.Candidate{cand(0, up, -30, 0, violates), cand(1, up, 20, 1, violates)}, -1, 1, path.WhyBestOfWorst},
		{"the worst by preference", loose, []path.Candidate{cand(0, up, 20, 1, violates), cand(1, up, 15, 0, violates)}, -1, 1, path.WhyBestOfWorst},
		{"strict refuses", strict, []path.Candidate{cand(0, up, 10, 0, violates)}, -1, -1, path.WhyStrict},
		{"strict leaves", strict, []path.Candidate{cand(0, up, 10, 0, violates), cand(1, down, 0, 0)}, 0, -1, path.WhyStrict},
		{"strict and down", strict, []path.Candidate{cand(0, down, 0, 0)}, 0, -1, path.WhyNone},
		{"strict excludes what it does not list", strict, []path.Candidate{cand(0, up, 100, path.NoGroup)}, -1, -1, path.WhyNone},
		{"strict tries what is not measured", strict, []path.Candidate{cand(0, unknown, 0, 0)}, -1, 0, path.WhyUnmeasured},
		{"unlisted is the last choice", loose, []path.Candidate{cand(0, up, 100, path.NoGroup), cand(1, up, 50, 3)}, -1, 1, path.WhyBest},
		{"unlisted, but all there is", loose, []path.Candidate{cand(0, up, 100, path.NoGroup)}, -1, 0, path.WhyBest},
		{"not measured", loose, []path.Candidate{cand(0, unknown, 0, 0), cand(1, down, 0, 0)}, -1, 0, path.WhyUnmeasured},
		{"measured before unknown", loose, []path.Candidate{cand(0, unknown, 0, 0), cand(1, up, 10, 0, violates)}, -1, 1, path.WhyBestOfWorst},
		{"flapping is avoided", loose, []path.Candidate{cand(0, up, 100, 0, suppressed), cand(1, up, 50, 1)}, -1, 1, path.WhyBest},
		{"flapping, but all there is", loose, []path.Candidate{cand(0, up, 100, 0, suppressed), cand(1, down, 0, 0)}, 1, 0, path.WhySuppressed},
		{"all down", loose, []path.Candidate{cand(0, down, 0, 0), cand(1, down, 0, 1)}, -1, 0, path.WhyLastResort},
		{"all down, stay", loose, []path.Candidate{cand(0, down, 0, 0), cand(1, down, 0, 1)}, 1, 1, path.WhyLastResort},
		{"preferred has settled", loose, []path.Candidate{cand(0, up, 70, 0, settled), cand(1, up, 100, 1, settled)}, 1, 0, path.WhyPreferred},
		{"preferred has not settled", loose, []path.Candidate{cand(0, up, 100, 0), cand(1, up, 100, 1, settled)}, 1, 1, path.WhySticky},
		{"current is gone", loose, []path.Candidate{cand(0, up, 100, 0)}, 9, 0, path.WhyBest},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, why := path.Steer(c.class, c.cands, 42, c.current)
			if got != c.want || why != c.why {
				t.Errorf("path %d (%v), want %d (%v)", got, why, c.want, c.why)
			}
			_, _, all := path.Explain(c.class, c.cands, 42, c.current)
			if len(all) != len(c.cands) {
				t.Errorf("%d candidates explained of %d", len(all), len(c.cands))
			}
		})
	}
}

// A flow that was moved away from its own path among equals returns if that has
// been better by 10 points for 30 s; a flow that was not moved never does.
func TestSteerReturns(t *testing.T) {
	class := classes(t).Class(4)
	returned := 0
	for h := range uint64(64) {
		equal := []path.Candidate{cand(0, path.Up, 100, 0, settled), cand(1, path.Up, 100, 0, settled)}
		home, _ := path.Steer(class, equal, h*0x9e3779b97f4a7c15, -1)
		for _, gap := range []path.Score{9, 10} {
			cs := []path.Candidate{cand(0, path.Up, 100, 0, settled), cand(1, path.Up, 100-gap, 0, settled)}
			to, why := path.Steer(class, cs, h*0x9e3779b97f4a7c15, 1)
			want := 1
			if home == 0 && gap == 10 {
				want = 0
				returned++
			}
			if to != want {
				t.Errorf("home %d, gap %d: on path %d (%v)", home, gap, to, why)
			}
		}
	}
	if returned == 0 {
		t.Error("no flow had path 0 for its own")
	}
}

func drawCands(t *rapid.T) []path.Candidate {
	n := rapid.IntRange(0, 8).Draw(t, "n")
	cs := make([]path.Candidate, n)
	for i := range cs {
		s := path.State(rapid.IntRange(0, 3).Draw(t, "state"))
		cs[i] = cand(i, s, path.Score(rapid.IntRange(-50, 100).Draw(t, "score")), uint8(rapid.SampledFrom([]int{0, 1, path.NoGroup}).Draw(t, "group")))
		cs[i].Suppressed = rapid.Bool().Draw(t, "suppressed")
		v, st := rapid.Bool().Draw(t, "violates"), rapid.Bool().Draw(t, "settled")
		each(func(s *path.Standing) {
			s.Violates = v
			if st && !v {
				s.Settled, s.Floor, s.Ceil = true, s.Score, s.Score
			}
		})(&cs[i])
	}
	return cs
}

// Whatever the candidates are: the winner is one of them; a strict class gets no
// violator and no dead path; a dead path wins only when all are dead; staying is
// stable: where steering led, it stays.
func TestSteerProperties(t *testing.T) {
	loose := classes(t).Class(4)
	strict := classes(t, configs.Class{Name: path.DefaultClass, Strict: true}).Class(4)
	rapid.Check(t, func(t *rapid.T) {
		cs := drawCands(t)
		class := loose
		if rapid.Bool().Draw(t, "strict") {
			class = strict
		}
		hash := rapid.Uint64().Draw(t, "hash")
		current := rapid.IntRange(-1, len(cs)).Draw(t, "current")
		got, why := path.Steer(class, cs, hash, current)
		if got < 0 {
			if why != path.WhyNone && why != path.WhyStrict || !class.Strict && len(cs) > 0 {
				t.Fatalf("nothing: %v", why)
			}
			return
		}
		if got >= len(cs) {
			t.Fatalf("winner %d of %d", got, len(cs))
		}
		c := cs[got]
		if class.Strict && (c.Class[class.ID].Violates && c.State != path.Unknown || c.State == path.Down || c.Class[class.ID].Group == path.NoGroup) {
			t.Fatalf("strict class on %+v (%v)", c, why)
		}
		if c.State == path.Down {
			for _, o := range cs {
				if o.State != path.Down {
					t.Fatalf("dead path %d although %d is %v", got, o.Index, o.State)
				}
			}
		}
		at := got
		for range len(cs) + 1 { // at most one move per preference or return
			next, _ := path.Steer(class, cs, hash, at)
			if next == at {
				return
			}
			at = next
		}
		t.Fatalf("never settles: %d again", at)
	})
}

// Equal paths share flows evenly, and losing one moves its flows only.
func TestSteerBalances(t *testing.T) {
	class := classes(t).Class(4)
	var cs []path.Candidate
	for i := range 4 {
		cs = append(cs, cand(i, path.Up, path.Score(95+i), 0))
	}
	const flows = 40_000
	var n [4]int
	for h := range uint64(flows) {
		i, why := path.Steer(class, cs, h, -1)
		if why != path.WhyBalanced {
			t.Fatal(why)
		}
		n[i]++
		without := cs[:3]
		if j, _ := path.Steer(class, without, h, -1); i != 3 && j != i {
			t.Fatalf("flow %d moved from %d to %d", h, i, j)
		}
	}
	for i := range n {
		if n[i] < flows/4*95/100 || n[i] > flows/4*105/100 {
			t.Errorf("path %d has %d of %d flows", i, n[i], flows)
		}
	}
}

func BenchmarkSteer(b *testing.B) {
	class := classes(b).Class(4)
	var cs []path.Candidate
	for i := range 8 {
		cs = append(cs, cand(i, path.Up, 100, uint8(i/4), settled))
	}
	for _, c := range []struct {
		name    string
		current int
	}{{"new", -1}, {"sticky", 2}, {"preferred", 6}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var h uint64
			for b.Loop() {
				h++
				path.Steer(class, cs, h, c.current)
			}
		})
	}
}

func TestNoAllocations(t *testing.T) {
	cls := classes(t)
	cs := []path.Candidate{cand(0, path.Up, 100, 0), cand(1, path.Down, 0, 0), cand(2, path.Up, 50, 0, violates)}
	k := key(6, "10.0.0.1:1", "10.0.0.2:2")
	for name, fn := range map[string]func(){
		"Steer new":    func() { path.Steer(cls.Class(0), cs, 1, -1) },
		"Steer sticky": func() { path.Steer(cls.Class(0), cs, 1, 2) },
		"Match":        func() { cls.Match(&k, 0) },
	} {
		if n := testing.AllocsPerRun(1000, fn); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}
