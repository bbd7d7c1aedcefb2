package store

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"patronus/netstack/path"
)

// generator makes plausible samples fast: a slow wave, noise, rare losses.
type generator struct {
	series []Series
	rng    uint64
	noise  [4096]float64
}

func newGenerator(paths int) *generator {
	g := &generator{rng: 88172645463325252}
	for n := range paths {
		site := fmt.Sprintf("site%04d", n/10)
		g.series = append(g.series, Series{site, path.NewID(site, fmt.Sprintf("wan%d", n%2), fmt.Sprintf("hub%d", n%10/2), "wan0")})
	}
	for i := range g.noise {
		// Normal by the sum of 12 uniform numbers.
		for range 12 {
			g.noise[i] += float64(g.next()%1000) / 1000
		}
		g.noise[i] -= 6
	}
	return g
}

func (g *generator) next() uint64 { // xorshift64 (Marsaglia, 2003)
	g.rng ^= g.rng << 13
	g.rng ^= g.rng >> 7
	g.rng ^= g.rng << 17
	return g.rng
}

// batch fills b with one sample of each series, in the quantisation that the
// engine's figures have.
func (g *generator) batch(b *Batch, at int64) {
	b.Site, b.At, b.Samples = "fleet", at, b.Samples[:0]
	wave := math.Sin(float64(at) / 3.6e6)
	for n := range g.series {
		r := g.next()
		noise := func(shift uint) float64 { return g.noise[r>>shift&4095] }
		s := Sample{At: at}
		s.V[Latency] = int32(1500 + 400*float64(n%7) + 200*wave + 30*noise(0))
		s.V[Jitter] = int32(math.Abs(40 + 8*noise(12)))
		s.V[PDV] = int32(math.Abs(90 + 20*noise(24)))
		if r>>36&63 == 0 {
			s.V[LossOut] = int32(r >> 42 & 511)
			s.V[Loss] = s.V[LossOut]
		}
		s.V[Tx] = int32(5000 + 1000*wave + 200*noise(36))
		s.V[Rx] = int32(20000 + 3000*wave + 500*noise(48))
		s.V[Bandwidth], s.V[MTU], s.V[Score], s.V[State] = s.V[Rx], 1420, int32(96+r&3), int32(path.Up)
		b.Samples = append(b.Samples, SeriesSample{g.series[n], s})
	}
}

// memory is what the process takes: VmHWM, VmRSS, RssAnon, bytes.
func memory() (peak, rss, anon float64) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, 0, 0
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		name, v, _ := strings.Cut(sc.Text(), ":")
		kb, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 64)
		switch name {
		case "VmHWM":
			peak = kb * 1024
		case "VmRSS":
			rss = kb * 1024
		case "RssAnon":
			anon = kb * 1024
		}
	}
	return peak, rss, anon
}

// cpu is the processor time that the process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// ingestDir and ingestPlan tell a child process what to ingest: paths, step ms,
// hours.
const (
	ingestDir  = "STORE_INGEST_DIR"
	ingestPlan = "STORE_INGEST_PLAN"
)

// TestIngestChild ingests in a process of its own, so that its memory can be
// measured.
func TestIngestChild(t *testing.T) {
	dir := os.Getenv(ingestDir)
	if dir == "" {
		return
	}
	var paths, step, hours int
	if _, err := fmt.Sscan(os.Getenv(ingestPlan), &paths, &step, &hours); err != nil {
		t.Fatal(err)
	}
	c := &clock{noon}
	s := open(t, dir, Options{Now: c.now, Dashboard: paths > 1000})
	g := newGenerator(paths)
	var b, part Batch
	// A second of a branch is little: some are written together, as fdatasync
	// would be all that is measured.
	together := max(1, 2000/paths)
	spent := time.Duration(0)
	for at := noon; at < noon+int64(hours)*hourMs; {
		b.Samples = b.Samples[:0]
		for range together {
			g.batch(&part, at)
			b.Samples = append(b.Samples, part.Samples...)
			at += int64(step)
		}
		b.Site, b.At = part.Site, part.At
		before := cpu()
		appendAll(t, s, b)
		if c.ms = at; at%minuteMs < int64(together*step) {
			if err := s.Seal(); err != nil {
				t.Fatal(err)
			}
		}
		spent += cpu() - before
	}
	c.ms += hourMs
	before := cpu()
	if err := s.Seal(); err != nil {
		t.Fatal(err)
	}
	spent += cpu() - before
	peak, rss, anon := memory()
	values := float64(hours) * 3.6e6 / float64(step) * float64(paths) * NumMetrics
	perTier := map[Tier]int{}
	if err := s.base.scan([]byte{byte(KindBlock)}, nil, false, func(key, v []byte) bool {
		perTier[Tier(key[1])] += len(key) + len(v)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("ingested peak-MB %.1f rss-MB %.1f anon-MB %.1f values/cpu-s %.0f B/value-raw %.3f B/value-minute %.3f B/value-hour %.4f disk-B/value %.3f\n",
		peak/1e6, rss/1e6, anon/1e6, values/spent.Seconds(), float64(perTier[Raw])/values, float64(perTier[Minute])/values,
		float64(perTier[Hour])/values, float64(used(dir))/values)
}

// ingest runs a child that ingests, and gives its figures.
func ingest(t testing.TB, paths, step, hours int, env ...string) map[string]float64 {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), os.Args[0], "-test.run=^TestIngestChild$")
	cmd.Env = append(os.Environ(), ingestDir+"="+t.TempDir(), fmt.Sprintf("%s=%d %d %d", ingestPlan, paths, step, hours))
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, line, _ := strings.Cut(string(out), "ingested ")
	line, _, _ = strings.Cut(line, "\n")
	figures := map[string]float64{}
	f := strings.Fields(line)
	for i := 0; i+1 < len(f); i += 2 {
		v, err := strconv.ParseFloat(f[i+1], 64)
		if err != nil {
			t.Fatal(err)
		}
		figures[f[i]] = v
	}
	return figures
}

// A branch of 20 paths at 1 s must do with 80 MB.
func TestBranchMemory(t *testing.T) {
	f := ingest(t, 20, 1000, 2)
	t.Logf("%v", f)
	if f["peak-MB"] == 0 || f["peak-MB"] > 80 {
		t.Errorf("a branch takes %.0f MB", f["peak-MB"])
	}
}

func report(b *testing.B, f map[string]float64) {
	for name, v := range f {
		b.ReportMetric(v, name)
	}
}

func BenchmarkIngest(b *testing.B) {
	for _, c := range []struct {
		name               string
		paths, step, hours int
		env                string
	}{
		{"branch20x1s12h", 20, 1000, 12, "GOMEMLIMIT=off"},
		{"fleet1000x10s6h", 1000, 10_000, 6, "GOMEMLIMIT=off"},
		{"fleet10000x10s2h", 10_000, 10_000, 2, "GOMEMLIMIT=250MiB"},
	} {
		b.Run(c.name, func(b *testing.B) {
			for range b.N {
				report(b, ingest(b, c.paths, c.step, c.hours, c.env))
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, paths := range []int{20, 10_000} {
		b.Run(fmt.Sprint(paths), func(b *testing.B) {
			c := &clock{noon}
			s := open(b, b.TempDir(), Options{Now: c.now, Dashboard: paths > 1000})
			g := newGenerator(paths)
			var batch Batch
			at := noon
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				g.batch(&batch, at)
				at += 1000
				b.StartTimer()
				appendAll(b, s, batch)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*paths), "ns/sample")
		})
	}
}

func BenchmarkSeal(b *testing.B) {
	const paths = 1000
	c := &clock{noon}
	s := open(b, b.TempDir(), Options{Now: c.now, Dashboard: true})
	g := newGenerator(paths)
	var batch Batch
	at := noon
	for b.Loop() {
		b.StopTimer()
		for end := at + hourMs; at < end; at += 10_000 {
			g.batch(&batch, at)
			appendAll(b, s, batch)
		}
		c.ms = at + minuteMs
		b.StartTimer()
		if err := s.Seal(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*paths), "ns/block")
}

// fill makes a store with some hours of history of some paths.
func fill(b *testing.B, paths int, hours, step int64) (*Store, *generator, *clock) {
	b.Helper()
	c := &clock{noon}
	s := open(b, b.TempDir(), Options{Now: c.now, Dashboard: true, Keep: Keep{Raw: 400 * day, Minute: 400 * day, Hour: 400 * day}})
	g := newGenerator(paths)
	var batch, all Batch
	for h := range hours {
		all.Samples = all.Samples[:0]
		for at := noon + h*hourMs; at < noon+(h+1)*hourMs; at += step {
			g.batch(&batch, at)
			all.Samples = append(all.Samples, batch.Samples...)
		}
		all.Site, all.At = batch.Site, batch.At
		appendAll(b, s, all)
		if c.ms = noon + (h+1)*hourMs + minuteMs; h%24 == 23 {
			if err := s.Seal(); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := s.Seal(); err != nil {
		b.Fatal(err)
	}
	return s, g, c
}

func BenchmarkRange(b *testing.B) {
	run := func(s *Store, q Query, points int) func(*testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				for _, err := range s.Range(q) {
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
				if n != points {
					b.Fatalf("%d points", n)
				}
			}
		}
	}
	s, g, _ := fill(b, 100, 24, 10_000)
	q := Query{Series: g.series[42], Metric: Latency, From: noon + 5*hourMs, To: noon + 6*hourMs}
	b.Run("1h-raw", run(s, q, 360))
	q.From, q.To = q.From+30*minuteMs, q.To+30*minuteMs
	b.Run("1h-raw-two-blocks", run(s, q, 360))
	q.From, q.To, q.Step = noon, noon+dayMs, minuteMs
	b.Run("24h-minutes", run(s, q, 1440))
	b.Run("fleet-p95-24h", func(b *testing.B) {
		for b.Loop() {
			if got, err := s.FleetQuantile(Latency, noon, noon+dayMs, hourMs, 0.95); err != nil || len(got) != 24 {
				b.Fatal(got, err)
			}
		}
	})
	long, g, _ := fill(b, 2, 90*24, 60_000)
	b.Run("90d-hours", run(long, Query{Series: g.series[1], Metric: Latency, From: noon, To: noon + 90*dayMs, Step: hourMs}, 90*24))
}

func BenchmarkLast(b *testing.B) {
	s := open(b, b.TempDir(), Options{Now: (&clock{noon}).now, Dashboard: true})
	g := newGenerator(10_000)
	var batch Batch
	g.batch(&batch, noon)
	appendAll(b, s, batch)
	b.ReportAllocs()
	for b.Loop() {
		if n := len(s.Last()); n != 10_000 {
			b.Fatal(n)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	s, _, c := fill(b, 100, 24, 10_000)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(used(filepath.Join(s.dir, baseDir)))/1e6, "MB")
	for b.Loop() {
		o, err := Open(s.dir, Options{Now: c.now, Dashboard: true})
		if err != nil {
			b.Fatal(err)
		}
		if err := o.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
