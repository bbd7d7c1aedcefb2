package benchstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"patronus/appliance/store"
	"patronus/e2e/benchstore/load"
)

func decode(text []byte, into any) error { return json.Unmarshal(text, into) }

const (
	branchPaths = 20
	branchDays  = 90
	dayMs       = int64(24 * time.Hour / time.Millisecond)
	branchBase  = tortureBase - tortureBase%dayMs
)

// Branch is the memory of a branch's store: 20 paths at 1 s with some days of
// data, appending and answering.
//
// MiB is what cannot be taken back: anonymous memory, at its greatest.
func Branch(ctx context.Context, dir string, days int) (Finding, error) {
	f := Finding{Test: fmt.Sprintf("branch memory, %d paths at 1 s, %d days", branchPaths, days), Runs: 1}
	if err := branchData(dir, days); err != nil {
		return f, err
	}
	var got struct {
		MiB, Anon float64
		Blocks    int
		Bytes     uint64
		Err       string
	}
	cmd := again(ctx, "branch", dir)
	cmd.Env = append(cmd.Env, "GOMEMLIMIT=64MiB") // as the node sets it on a small box
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &got)
	}
	if err != nil {
		return f, fmt.Errorf("%w: %.300s", err, out)
	}
	f.MiB = got.Anon
	f.Notes = fmt.Sprintf("%d records, %d MiB on disk; with the pages of files that it mapped, which the kernel takes back, at most %.0f MiB; ", got.Blocks, got.Bytes>>20, got.MiB)
	if got.Err != "" {
		f.Wrong++
		f.note("%s", got.Err)
	}
	return f, nil
}

// branchData makes a store of the last days before the end of the ninety: one
// day's samples again and again.
func branchData(dir string, days int) error {
	samples := filepath.Join(dir, "samples")
	shape := load.Shape{Paths: branchPaths, Ticks: 86_400, Step: 1000, Start: branchBase}
	if err := load.Write(samples, shape, seed); err != nil {
		return err
	}
	f, err := os.Open(samples)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	clock := time.UnixMilli(branchBase)
	s, err := store.Open(filepath.Join(dir, "branch"), store.Options{Now: func() time.Time { return clock }})
	if err != nil {
		return err
	}
	var b store.Batch
	for d := branchDays - days; d < branchDays; d++ {
		later := int64(d) * dayMs
		if err := load.Each(f, shape, 0, int(shape.Ticks), func(at int64, values []int32) error {
			at += later
			for p := range branchPaths {
				sm := store.SeriesSample{Series: branchSeries(p), Sample: store.Sample{At: at}}
				for m, v := range values[p*load.Metrics : (p+1)*load.Metrics] {
					sm.V[metricOf[m]] = v
				}
				b.Samples = append(b.Samples, sm)
			}
			if at/1000%600 != 599 { // ten minutes in one synced write
				return nil
			}
			b.Site, b.At, clock = "branch", at, time.UnixMilli(at)
			err := s.Append(context.Background(), b)
			b = store.Batch{Samples: b.Samples[:0]}
			return err
		}); err != nil {
			return errors.Join(err, s.Close())
		}
		if err := s.Seal(); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	return s.Close()
}

func branchSeries(p int) store.Series {
	s := series(p)
	s.Site = "branch"
	return s
}

// branch opens that store, lives for some hours of a branch, and tells its
// memory.
func branch(dir string) (out struct {
	MiB, Anon float64
	Blocks    int
	Bytes     uint64
	Err       string
},
) {
	clock := time.UnixMilli(branchBase).Add(branchDays * 24 * time.Hour)
	s, err := store.Open(filepath.Join(dir, "branch"), store.Options{Now: func() time.Time { return clock }})
	if err != nil {
		out.Err = err.Error()
		return out
	}
	var b store.Batch
	for tick := range int64(3 * 3600) {
		at := clock.UnixMilli()
		for p := range branchPaths {
			sm := store.SeriesSample{Series: branchSeries(p), Sample: store.Sample{At: at}}
			for m := range sm.V {
				sm.V[m] = tortureValue(tick, p, m) % 64
			}
			b.Samples = append(b.Samples, sm)
		}
		clock = clock.Add(time.Second)
		if tick%30 != 29 {
			continue
		}
		b.Site, b.At = "branch", at
		if err := s.Append(context.Background(), b); err != nil {
			out.Err = err.Error()
			return out
		}
		b = store.Batch{Samples: b.Samples[:0]}
		out.Anon = max(out.Anon, load.Anonymous(os.Getpid()))
	}
	if err := s.Seal(); err != nil {
		out.Err = err.Error()
	}
	// A person looks at all paths: 90 days by the hour, and a day raw.
	for p := range branchPaths {
		n := 0
		for _, q := range []store.Query{
			{Step: time.Hour.Milliseconds(), From: branchBase, To: clock.UnixMilli()},
			{Tier: store.Raw, From: clock.UnixMilli() - 36*3600_000, To: clock.UnixMilli() - 12*3600_000},
		} {
			q.Series, q.Metric = branchSeries(p), store.Latency
			for _, err := range s.Range(q) {
				if err != nil {
					out.Err = err.Error()
				}
				n++
			}
		}
		out.Anon = max(out.Anon, load.Anonymous(os.Getpid()))
		if n < 24*3600 {
			out.Err = fmt.Sprintf("%d points", n)
		}
	}
	_, peak := load.Memory(os.Getpid())
	out.MiB, out.Bytes = float64(peak)/(1<<20), s.Stats().Bytes
	out.Blocks = int(s.Head())
	if err := s.Close(); err != nil {
		out.Err = err.Error()
	}
	return out
}
