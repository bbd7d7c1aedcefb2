package collect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"net"
	"os"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"patronus/appliance/store"
	"patronus/netstack/path"
)

// The bars of issue 6, item "What it must show".
const (
	barPromote   = 60 * time.Second // 100 sites, 24 h of history, complete
	barReconnect = 60 * time.Second // 1,000 sites at once, all served
	barHeap      = 400 << 20        // bytes, of both ends in one process
)

// archive is the change feed of one site, as a real store sealed it.
type archive struct {
	site    string
	records []store.Record // by number, from 1
}

func (a *archive) Identity() (string, uint64)   { return a.site, 1 }
func (a *archive) Head() uint64                 { return uint64(len(a.records)) }
func (a *archive) Series(string) []store.Series { return nil }

func (a *archive) Samples(store.Series, int64, int64) iter.Seq2[store.Sample, error] {
	return func(func(store.Sample, error) bool) {}
}

func (a *archive) Tail(ctx context.Context, _ string, _ func(store.Batch)) error {
	<-ctx.Done()
	return ctx.Err()
}

func (a *archive) Section(from, to uint64, limit, size int) (store.Section, error) {
	sec := store.Section{First: from, Last: to}
	for seq := min(to, a.Head()); seq >= from && seq > 0; seq-- {
		sec.Records = append(sec.Records, a.records[seq-1])
		if size -= len(a.records[seq-1].Value); size <= 0 || len(sec.Records) == limit {
			sec.First = seq
			break
		}
	}
	return sec, nil
}

// archives makes the histories of many sites with one store that takes every
// site for its own: paths of each, a sample each 10 s, hours long.
func archives(t *testing.T, sites, paths, hours int) (all []*archive, records int, bytes int) {
	t.Helper()
	began := time.Now()
	s, err := store.Open(t.TempDir(), store.Options{Dashboard: true})
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Truncate(time.Hour).UnixMilli()
	index := map[string]*archive{}
	for i := range sites {
		a := &archive{site: fmt.Sprintf("site%04d", i)}
		index[a.site] = a
		all = append(all, a)
	}
	for h := hours; h > 0; h-- {
		start := end - int64(h)*3600_000
		var group errgroup.Group
		group.SetLimit(32) // the store syncs several at once
		for i, a := range all {
			b := store.Batch{Site: a.site, At: start + 3590_000, Events: []store.Event{{At: start + 1000, Type: "test", Severity: "info"}}}
			for p := range paths {
				id := path.ID(fmt.Sprintf("%s.wan%d~site%04d.wan0", a.site, p, (i+1)%sites))
				for k := range int64(360) {
					b.Samples = append(b.Samples, sampleAt(a.site, id, start+k*10_000, i*paths+p))
				}
			}
			group.Go(func() error { return s.Append(t.Context(), b) })
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if err := s.Seal(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d sites, %d paths, %d h appended and sealed in %v", sites, paths, hours, time.Since(began))
	for last := s.Head(); last > 0; {
		sec, err := s.Section(1, last, 4096, 8<<20)
		if err != nil || len(sec.Damaged) > 0 {
			t.Fatal(sec.Damaged, err)
		}
		for _, r := range sec.Records {
			site := siteIn(r, index)
			if site == "" {
				continue
			}
			index[site].records = append(index[site].records, r)
			records++
			bytes += len(r.Key) + len(r.Value)
		}
		last = sec.First - 1
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		for i := range a.records { // newest first so far
			a.records[i].Seq = uint64(len(a.records) - i)
		}
		for i, j := 0, len(a.records)-1; i < j; i, j = i+1, j-1 {
			a.records[i], a.records[j] = a.records[j], a.records[i]
		}
	}
	return all, records, bytes
}

// siteIn finds the site that a record is of by its key, which spells it.
func siteIn(r store.Record, index map[string]*archive) string {
	for i := 0; i+8 <= len(r.Key); i++ {
		if a := index[string(r.Key[i:i+8])]; a != nil {
			return a.site
		}
	}
	return ""
}

// sampleAt is a path with a daily rhythm and some noise.
func sampleAt(site string, id path.ID, at int64, seed int) store.SeriesSample {
	s := store.SeriesSample{Series: store.Series{Site: site, Path: id}, Sample: store.Sample{At: at}}
	noise := int32((uint64(at/10_000+int64(seed))*0x9e3779b97f4a7c15)>>56) - 128
	s.V[store.Latency] = 2000 + int32(500*math.Sin(float64(at)/3e7+float64(seed))) + noise
	s.V[store.Jitter], s.V[store.PDV] = 50+noise/8, 150+noise/4
	s.V[store.Tx], s.V[store.Rx], s.V[store.Bandwidth] = 9000+8*noise, 7000+4*noise, 9000+8*noise
	s.V[store.MTU], s.V[store.Score], s.V[store.State] = 1420, 95+noise/64, int32(path.Up)
	return s
}

// run is the result of a measurement, one JSON line of bench-store.
type run struct {
	Name    string  `json:"name"`
	Sites   int     `json:"sites"`
	Records int     `json:"records"`
	Bytes   int     `json:"bytes"`
	Seconds float64 `json:"seconds"`
	Bar     float64 `json:"bar_seconds"`
	Gap     uint64  `json:"gap_records"`
	// HeapLive is what the garbage collector found in use at most, HeapPeak what
	// the heap was with its slack; both ends, above what the archives take.
	HeapLive  int     `json:"heap_live_mib"`
	HeapPeak  int     `json:"heap_peak_mib"`
	HeapBar   int     `json:"bar_heap_mib"` // of HeapLive
	Load      string  `json:"load"`         // of the machine: other work slows this
	Procs     int     `json:"cpus"`
	FirstLive float64 `json:"first_site_seconds"`
	CPU       float64 `json:"cpu_seconds"`
}

// cpuSeconds is what this process has used.
func cpuSeconds(t *testing.T) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// collectAll collects the archives into a real store and measures.
func collectAll(t *testing.T, name string, all []*archive, records, bytes int, bar time.Duration) {
	t.Helper()
	n := newNetwork()
	n.join("hq")
	ctx, stop := context.WithCancel(t.Context())
	var sites sync.WaitGroup
	names := make([]string, len(all))
	for i, a := range all {
		names[i] = a.site
		n.serve(ctx, t, &sites, a.site, a, func(string) error { return nil })
	}
	sink, err := store.Open(t.TempDir(), store.Options{Site: "*", Dashboard: true})
	if err != nil {
		t.Fatal(err)
	}
	f := NewFleet(Options{Sink: sink, Dial: func(ctx context.Context, site string) (net.Conn, error) { return n.dial(ctx, "hq", site) }})
	f.SetSites(names)
	var work sync.WaitGroup
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	before, peak, live := mem.HeapInuse, uint64(0), uint64(0)
	inUse := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	r := run{Name: name, Sites: len(all), Records: records, Bytes: bytes, Bar: bar.Seconds(), HeapBar: barHeap >> 20, Procs: runtime.NumCPU()}
	began, used := time.Now(), cpuSeconds(t)
	work.Go(func() {
		if err := f.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	var last Report
	for time.Since(began) < 4*bar {
		<-look.C
		runtime.ReadMemStats(&mem)
		peak = max(peak, mem.HeapInuse)
		metrics.Read(inUse)
		live = max(live, inUse[0].Value.Uint64())
		last = f.Report()
		if r.FirstLive == 0 && last.Have > 0 {
			r.FirstLive = time.Since(began).Seconds()
		}
		if last.Complete {
			break
		}
	}
	r.Seconds, r.CPU = time.Since(began).Seconds(), cpuSeconds(t)-used
	r.HeapPeak, r.HeapLive = int(peak-min(peak, before))>>20, int(live-min(live, before))>>20
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		r.Load, _, _ = strings.Cut(string(load), " ")
	}
	for i := range last.Sites {
		r.Gap += last.Sites[i].Gap()
	}
	stop()
	work.Wait()
	sites.Wait()
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(string(line))
	if !last.Complete || r.Gap > 0 || last.Want != uint64(records) {
		t.Errorf("complete %v, gap %d, %d of %d records; unreached %d", last.Complete, r.Gap, last.Want, records, len(last.Unreached))
	}
	if r.Seconds > bar.Seconds() || r.HeapLive > r.HeapBar {
		t.Errorf("%.1f s, %d MiB: the bars are %v, %d MiB", r.Seconds, r.HeapLive, bar, r.HeapBar)
	}
	// What arrived is what was there.
	for _, a := range []*archive{all[0], all[len(all)-1]} {
		samples := 0
		for _, series := range sink.Series(a.site) {
			for _, err := range sink.Samples(series, 0, math.MaxInt64) {
				if err != nil {
					t.Fatal(err)
				}
				samples++
			}
		}
		if samples == 0 {
			t.Errorf("%s: no samples", a.site)
		}
		t.Logf("%s: %d samples read back", a.site, samples)
	}
	if err := sink.Close(); err != nil {
		t.Error(err)
	}
}

func long(t *testing.T) {
	t.Helper()
	if os.Getenv("PATRONUS_LONG") == "" {
		t.Skip("PATRONUS_LONG is not set")
	}
}

// Promote on a fabric of 100 sites of 10 paths with 24 h of history.
func TestScalePromote(t *testing.T) {
	long(t)
	all, records, bytes := archives(t, 100, 10, 24)
	collectAll(t, "promote", all, records, bytes, barPromote)
}

// A thousand sites come back at once, each with an hour that it was cut off.
func TestScaleReconnect(t *testing.T) {
	long(t)
	all, records, bytes := archives(t, 1000, 10, 1)
	collectAll(t, "reconnect", all, records, bytes, barReconnect)
}
