package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"patronus/netstack/path"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

// noon is when tests take place.
const noon = int64(20_000)*dayMs + 12*hourMs

// clock is a clock that a test moves.
type clock struct{ ms int64 }

func (c *clock) now() time.Time { return time.UnixMilli(c.ms) }

// open opens a store that is closed with the test.
func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	if o.Free == nil {
		o.Free = func(string) (uint64, uint64, error) { return 1 << 40, 1 << 41, nil }
	}
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func series(n int) Series {
	return Series{"hq", path.NewID("hq", fmt.Sprintf("wan%d", n%4), fmt.Sprintf("site%d", n/4), "wan0")}
}

// synthetic is a plausible sample of path n at a time, always the same.
func synthetic(n int, at int64) Sample {
	rng := rand.New(rand.NewPCG(uint64(n), uint64(at)))
	s := Sample{At: at}
	base := 1000 + 300*float64(n%7) + 200*math.Sin(float64(at)/3.6e6)
	s.V[Latency] = int32(base + 20*rng.NormFloat64())
	s.V[Jitter] = int32(math.Abs(30 + 10*rng.NormFloat64()))
	s.V[PDV] = int32(math.Abs(80 + 25*rng.NormFloat64()))
	if rng.IntN(50) == 0 {
		s.V[LossOut] = int32(rng.IntN(2000))
		s.V[LossIn] = int32(rng.IntN(2000))
	}
	s.V[Loss] = max(s.V[LossOut], s.V[LossIn])
	s.V[Tx] = int32(5000 + 800*rng.NormFloat64())
	s.V[Rx] = int32(9000 + 900*rng.NormFloat64())
	s.V[Bandwidth] = max(s.V[Tx], s.V[Rx])
	s.V[MTU] = 1420
	s.V[Score] = int32(min(100, 90+rng.IntN(12)))
	s.V[State] = int32(path.Up)
	return s
}

// tick is a batch of paths at a time.
func tick(paths int, at int64) Batch {
	b := Batch{Site: "hq", At: at}
	for n := range paths {
		b.Samples = append(b.Samples, SeriesSample{series(n), synthetic(n, at)})
	}
	return b
}

// hourOf is a batch with a whole hour.
func hourOf(paths int, from, step int64) Batch {
	b := Batch{Site: "hq", At: from}
	for at := from; at < from+hourMs; at += step {
		b.Samples = append(b.Samples, tick(paths, at).Samples...)
	}
	return b
}

func appendAll(t testing.TB, s *Store, b Batch) {
	t.Helper()
	if err := s.Append(context.Background(), b); err != nil {
		t.Fatal(err)
	}
}

// wantSamples compares a series with what was appended each step ms.
func wantSamples(t testing.TB, s *Store, n int, from, to, step int64) {
	t.Helper()
	at := from
	for sm, err := range s.Samples(series(n), from, to) {
		if err != nil {
			t.Fatal(err)
		}
		if sm != synthetic(n, at) {
			t.Fatalf("path %d: got %+v\nwant %+v", n, sm, synthetic(n, at))
		}
		at += step
	}
	if at < to {
		t.Fatalf("path %d: samples end at %d of %d", n, at-from, to-from)
	}
}

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	c := &clock{noon}
	s := open(t, dir, Options{Now: c.now})
	const paths, step = 3, 10_000
	end := noon + 5*hourMs/2
	for at := noon; at < end; at += step {
		appendAll(t, s, tick(paths, at))
	}
	for n := range paths {
		wantSamples(t, s, n, noon, end, step)
	}
	c.ms = end
	if err := s.Seal(); err != nil {
		t.Fatal(err)
	}
	for n := range paths {
		wantSamples(t, s, n, noon, end, step)
	}
	if got := len(s.Last()); got != paths {
		t.Fatalf("%d last samples", got)
	}
	// A copy of what is on the disk now is what a crash leaves.
	crashed := t.TempDir()
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	r := open(t, crashed, Options{Now: c.now})
	for n := range paths {
		wantSamples(t, r, n, noon, end, step)
	}
	if err := r.Seal(); err != nil {
		t.Fatal(err)
	}
	for n := range paths {
		wantSamples(t, r, n, noon, end, step)
	}
	if a, b := s.node, r.node; a != b {
		t.Fatal("the identity changed")
	}
	// Closed and opened again, without the log of the sealed hours.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o := open(t, dir, Options{Now: c.now})
	for n := range paths {
		wantSamples(t, o, n, noon, end, step)
	}
	if last, ok := o.LastOf(series(1)); !ok || last.At != end-step {
		t.Fatalf("last is %+v", last)
	}
	if got := len(o.Series("hq")); got != paths {
		t.Fatalf("%d series", got)
	}
}

func TestRollups(t *testing.T) {
	c := &clock{noon}
	s := open(t, t.TempDir(), Options{Now: c.now})
	const step = 1000
	end := noon + hourMs + 20*minuteMs
	for at := noon; at < end; at += step {
		appendAll(t, s, tick(1, at))
	}
	check := func() {
		t.Helper()
		for _, tier := range []Tier{Minute, Hour} {
			at := noon
			for p, err := range s.Range(Query{Series: series(0), Metric: Latency, From: noon, To: end, Tier: tier}) {
				if err != nil {
					t.Fatal(err)
				}
				var col []int64
				for x := at; x < min(at+tier.Step(), end); x += step {
					col = append(col, int64(synthetic(0, x).V[Latency]))
				}
				want := new(roller).one(col)
				if p.At != at || p.Count != uint64(len(col)) || p.Min != Latency.Value(int32(want.min)) ||
					p.Max != Latency.Value(int32(want.max)) || math.Abs(p.Mean-Latency.Value(int32(want.mean))) > 1e-9 ||
					p.P95 != Latency.Value(int32(want.p95)) {
					t.Fatalf("%v: %+v, want %+v at %d", tier, p, want, at)
				}
				at += tier.Step()
			}
			if at < end {
				t.Fatalf("%v: ends at %d of %d", tier, at-noon, end-noon)
			}
		}
	}
	check()
	c.ms = end
	if err := s.Seal(); err != nil {
		t.Fatal(err)
	}
	check()
	n := 0
	for p := range s.Range(Query{Series: series(0), Metric: Latency, From: noon, To: end, Step: 5 * minuteMs}) {
		if p.Count != 300 || (p.At-noon)%(5*minuteMs) != 0 {
			t.Fatalf("%+v", p)
		}
		n++
	}
	if n != 16 {
		t.Fatalf("%d points of 5 minutes", n)
	}
}

func TestFull(t *testing.T) {
	c := &clock{noon}
	free := uint64(1 << 40)
	s := open(t, t.TempDir(), Options{Now: c.now, Free: func(string) (uint64, uint64, error) { return free, 1 << 41, nil }})
	appendAll(t, s, tick(1, noon))
	free = 1 << 20
	if err := s.Append(context.Background(), tick(1, noon+1000)); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("%v", err)
	}
	if err := s.Acknowledge("no", "me", noon); !errors.Is(err, ErrNotFound) {
		t.Fatalf("%v", err)
	}
	wantSamples(t, s, 0, noon, noon+1000, 1000)
	c.ms = noon + 2*hourMs
	if err := s.Seal(); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("%v", err)
	}
	wantSamples(t, s, 0, noon, noon+1000, 1000)
	free = 1 << 40
	appendAll(t, s, tick(1, noon+1000))
	wantSamples(t, s, 0, noon, noon+2000, 1000)
	if err := s.Seal(); err != nil {
		t.Fatal(err)
	}
	wantSamples(t, s, 0, noon, noon+2000, 1000)
	if st := s.Stats(); st.Refused == 0 || st.Full {
		t.Fatalf("%+v", st)
	}
}

func TestFormat(t *testing.T) {
	dir := t.TempDir()
	if err := open(t, dir, Options{}).Close(); err != nil {
		t.Fatal(err)
	}
	m, err := readMark(dir)
	if err != nil || m.Format != Format || !m.Clean {
		t.Fatalf("%+v, %v", m, err)
	}
	m.Format++
	if err := m.write(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrNewer) {
		t.Fatalf("%v", err)
	}
	m.Format--
	if err := m.write(dir); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, Options{})
	if err := setFormat(s.base, Format+1); err != nil {
		t.Fatal(err)
	}
	if err := migrate(s.base, nil, Format); !errors.Is(err, ErrNewer) {
		t.Fatalf("%v", err)
	}
	// An older one is brought up step by step, and goes on where it was cut off.
	if err := setFormat(s.base, -1+Format); err != nil {
		t.Fatal(err)
	}
	ran := 0
	fail := errors.New("cut off")
	steps := map[int]migration{Format - 1: func(*base) error {
		if ran++; ran == 1 {
			return fail
		}
		return nil
	}}
	if err := migrate(s.base, steps, Format); !errors.Is(err, fail) {
		t.Fatalf("%v", err)
	}
	for range 2 {
		if err := migrate(s.base, steps, Format); err != nil {
			t.Fatal(err)
		}
	}
	if ran != 2 {
		t.Fatalf("the step ran %d times", ran)
	}
}

// tables is how many bytes Badger's tables have.
func tables(t *testing.T, dir string) (total int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, baseDir, "*.sst"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		total += st.Size()
	}
	return total
}

func TestRetireFreesSpace(t *testing.T) {
	c := &clock{noon}
	dir := t.TempDir()
	s := open(t, dir, Options{Now: c.now, Keep: Keep{Raw: 2 * day, Minute: 3 * day, Hour: 90 * day}})
	const days, paths = 6, 10
	for d := range int64(days) {
		for h := range int64(24) {
			appendAll(t, s, hourOf(paths, noon+d*dayMs+h*hourMs, 10_000))
		}
		c.ms = noon + (d+1)*dayMs + minuteMs
		if err := s.Seal(); err != nil {
			t.Fatal(err)
		}
	}
	// Closing writes what is in memory to tables.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{Now: c.now, Keep: s.options.Keep})
	before := tables(t, dir)
	prefixes, err := s.retired()
	if err != nil || len(prefixes) == 0 {
		t.Fatal(prefixes, err)
	}
	if err := s.Retire(); err != nil {
		t.Fatal(err)
	}
	after := tables(t, dir)
	t.Logf("%d prefixes retired: %d to %d KiB", len(prefixes), before>>10, after>>10)
	if after > before*3/4 {
		t.Errorf("retention freed %d of %d KiB", (before-after)>>10, before>>10)
	}
	if p, _ := s.retired(); len(p) != 0 {
		t.Fatalf("%d prefixes are left", len(p))
	}
	raw, err := s.days([]byte{byte(KindBlock), byte(Raw)})
	if err != nil || len(raw) > 3 {
		t.Fatal(raw, err)
	}
	count := func(tier Tier) (n int) {
		for p, err := range s.Range(Query{Series: series(0), Metric: Latency, From: noon, To: c.ms, Tier: tier}) {
			if err != nil {
				t.Fatal(err)
			}
			n += int(p.Count)
		}
		return n
	}
	if n := count(Hour); n != days*8640 {
		t.Errorf("the hour tier has %d samples", n)
	}
	if n := count(Raw); n >= 3*8640 || n < 2*8640 {
		t.Errorf("the raw tier has %d samples", n)
	}
	records := 0
	for from := uint64(0); ; {
		recs, err := s.Records(from, s.Head(), false, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(recs) == 0 {
			break
		}
		records += len(recs)
		from = recs[len(recs)-1].Seq + 1
	}
	feed := 0
	if err := s.base.scan([]byte{kindFeed}, nil, false, func(_, _ []byte) bool { feed++; return true }); err != nil {
		t.Fatal(err)
	}
	if feed != records {
		t.Errorf("%d feed entries for %d records", feed, records)
	}
}

// Writers, readers and the sealer at the same time: what was acknowledged is
// there, and the race detector is silent.
func TestConcurrent(t *testing.T) {
	c := &clock{noon + 10*hourMs}
	s := open(t, t.TempDir(), Options{Now: c.now, Dashboard: true})
	const writers, ticks, step = 4, 150, 60_000
	var group errgroup.Group
	for n := range writers {
		group.Go(func() error {
			for at := noon; at < noon+ticks*step; at += step {
				b := Batch{Site: fmt.Sprint("site", n), At: at, Samples: []SeriesSample{{Series{fmt.Sprint("site", n), series(n).Path}, synthetic(n, at)}}}
				if err := s.Append(context.Background(), b); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		for range 20 {
			if err := s.Seal(); err != nil {
				return err
			}
			s.Last()
			if _, err := s.FleetQuantile(Latency, noon, noon+hourMs, hourMs, 0.5); err != nil {
				return err
			}
			for _, err := range s.Range(Query{Series: Series{"site0", series(0).Path}, Metric: Latency, From: noon, To: noon + dayMs, Step: minuteMs}) {
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := s.Seal(); err != nil {
		t.Fatal(err)
	}
	for n := range writers {
		at := noon
		for sm, err := range s.Samples(Series{fmt.Sprint("site", n), series(n).Path}, noon, noon+dayMs) {
			if err != nil || sm != synthetic(n, at) {
				t.Fatal(n, sm, err)
			}
			at += step
		}
		if at != noon+ticks*step {
			t.Fatalf("writer %d: samples end after %d ticks", n, (at-noon)/step)
		}
	}
	q, err := s.FleetQuantile(Latency, noon, noon+3*hourMs, 3*hourMs, 0.5)
	if err != nil || len(q) != 1 || q[0].Count != writers*ticks {
		t.Fatal(q, err)
	}
}
