package benchstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cespare/xxhash/v2"

	"patronus/appliance/store"
	"patronus/e2e/benchstore/load"
)

func decode(text []byte, into any) error { return json.Unmarshal(text, into) }

const (
	branchPaths = 20
	branchDays  = 90
)

// Branch is the memory of a branch's store: 20 paths at 1 s with 90 days of
// data, appending and answering. The 90 days are one day's blocks again and
// again, under other keys; writing them one by one would take hours.
func Branch(ctx context.Context, dir string) (Finding, error) {
	f := Finding{Test: "branch memory, 20 paths at 1 s, 90 days", Runs: 1}
	if err := branchDay(dir); err != nil {
		return f, err
	}
	var got struct {
		MiB    float64
		Blocks int
		Bytes  uint64
		Err    string
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
	f.MiB = got.MiB
	f.Notes = fmt.Sprintf("%d raw and minute blocks, %d MiB on disk", got.Blocks, got.Bytes>>20)
	if got.Err != "" {
		f.Wrong++
		f.note("%s", got.Err)
	}
	return f, nil
}

// branchDay makes a store of one day, and multiplies it to ninety.
func branchDay(dir string) error {
	day := filepath.Join(dir, "day")
	base := tortureBase - tortureBase%(24*time.Hour).Milliseconds()
	clock := time.UnixMilli(base)
	one, err := store.Open(day, store.Options{Now: func() time.Time { return clock }})
	if err != nil {
		return err
	}
	samples := filepath.Join(dir, "samples")
	shape := load.Shape{Paths: branchPaths, Ticks: 86_400, Step: 1000, Start: base}
	if err := load.Write(samples, shape, seed); err != nil {
		return err
	}
	f, err := os.Open(samples)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	var b store.Batch
	err = load.Each(f, shape, 0, int(shape.Ticks), func(at int64, values []int32) error {
		for p := range branchPaths {
			s := store.SeriesSample{Series: branchSeries(p), Sample: store.Sample{At: at}}
			for m := range s.V {
				s.V[m] = 0
			}
			for m, v := range values[p*load.Metrics : (p+1)*load.Metrics] {
				s.V[metricOf[m]] = v
			}
			b.Samples = append(b.Samples, s)
		}
		if (at-base)/1000%600 != 599 { // ten minutes in one synced write
			return nil
		}
		b.Site, b.At, clock = "branch", at, time.UnixMilli(at)
		err := one.Append(context.Background(), b)
		b = store.Batch{Samples: b.Samples[:0]}
		return err
	})
	if err != nil {
		return errors.Join(err, one.Close())
	}
	clock = clock.Add(48 * time.Hour)
	if err := one.Seal(); err != nil {
		return errors.Join(err, one.Close())
	}
	rs, err := one.Records(0, one.Head()+1, false, 1<<20)
	if err = errors.Join(err, one.Close()); err != nil {
		return err
	}
	clock = time.UnixMilli(base).Add(branchDays * 24 * time.Hour)
	all, err := store.Open(filepath.Join(dir, "branch"), store.Options{Now: func() time.Time { return clock }})
	if err != nil {
		return err
	}
	for d := range int64(branchDays) {
		var moved []store.Record
		for _, r := range rs {
			if r.Kind == store.KindBlock && store.Tier(r.Key[1]) != store.Hour {
				moved = append(moved, later(r, d))
			}
		}
		if err := all.Import("branch", moved, nil); err != nil {
			return errors.Join(err, all.Close())
		}
	}
	return all.Close()
}

func branchSeries(p int) store.Series {
	s := series(p)
	s.Site = "branch"
	return s
}

// later is a block some days later: see appliance/store/FORMAT.md for its key
// and checksum.
func later(r store.Record, days int64) store.Record {
	k := bytes.Clone(r.Key)
	binary.BigEndian.PutUint32(k[2:], binary.BigEndian.Uint32(k[2:])+uint32(days))
	at := k[len(k)-8:]
	binary.BigEndian.PutUint64(at, binary.BigEndian.Uint64(at)+uint64(days*(24*time.Hour).Milliseconds()))
	v := bytes.Clone(r.Value)
	d := xxhash.New()
	_, _ = d.Write(k)
	_, _ = d.Write(v[:len(v)-8])
	binary.BigEndian.PutUint64(v[len(v)-8:], d.Sum64())
	return store.Record{Kind: r.Kind, Key: k, Value: v}
}

// branch opens that store, lives for some hours of a branch, and tells its
// memory.
func branch(dir string) (out struct {
	MiB    float64
	Blocks int
	Bytes  uint64
	Err    string
}) {
	base := tortureBase - tortureBase%(24*time.Hour).Milliseconds()
	clock := time.UnixMilli(base).Add(branchDays * 24 * time.Hour)
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
	}
	if err := s.Seal(); err != nil {
		out.Err = err.Error()
	}
	// A person looks at all paths: 90 days by the hour, and a day raw.
	for p := range branchPaths {
		n := 0
		for _, q := range []store.Query{
			{Step: time.Hour.Milliseconds(), From: base, To: clock.UnixMilli()},
			{Tier: store.Raw, From: base + 40*24*3600_000, To: base + 41*24*3600_000},
		} {
			q.Series, q.Metric = branchSeries(p), store.Latency
			for _, err := range s.Range(q) {
				if err != nil {
					out.Err = err.Error()
				}
				n++
			}
		}
		if n < 24*3600 {
			out.Err = fmt.Sprintf("%d points", n)
		}
	}
	_, peak := load.Memory(os.Getpid())
	out.MiB, out.Bytes = float64(peak)/(1<<20), s.Stats().Bytes
	out.Blocks = branchDays * branchPaths * 25
	if err := s.Close(); err != nil {
		out.Err = err.Error()
	}
	return out
}
