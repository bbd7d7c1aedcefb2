package benchstore

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"patronus/appliance/store"
	"patronus/e2e/benchstore/load"
	"patronus/netstack/path"
)

// metricOf is where our store keeps a value of the load; units are the same.
var metricOf = [load.Metrics]store.Metric{
	load.Latency: store.Latency, load.Jitter: store.Jitter, load.Loss: store.LossOut, load.Tx: store.Tx, load.Score: store.Score,
}

// Ours is appliance/store as a dashboard runs it: a synced Append for each tick,
// sealing and rollups beside it.
type Ours struct {
	dir     string
	options store.Options
	store   *store.Store
	end     func() error
	clock   atomic.Int64 // Unix ms of the data: retention and sealing go by it
	series  []store.Series
	samples []store.SeriesSample
}

// NewOurs opens a store in a directory.
func NewOurs(dir string, dashboard bool) (*Ours, error) {
	o := &Ours{dir: dir}
	o.options = store.Options{Dashboard: dashboard, Now: func() time.Time { return time.UnixMilli(o.clock.Load()) }}
	return o, o.open()
}

func (o *Ours) open() (err error) {
	if o.store, err = store.Open(o.dir, o.options); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := o.store
	go func() { done <- s.Run(ctx) }()
	o.end = func() error {
		cancel()
		return cmp.Or(<-done, s.Close())
	}
	return nil
}

// Close closes the store.
func (o *Ours) Close() error { return o.end() }

func series(i int) store.Series {
	return store.Series{Site: load.Site(i), Path: path.ID(load.Path(i))}
}

func (o *Ours) grow(paths int) {
	for i := len(o.series); i < paths; i++ {
		o.series = append(o.series, series(i))
		s := store.SeriesSample{Series: o.series[i]}
		for m := range s.V {
			s.V[m] = store.Missing
		}
		o.samples = append(o.samples, s)
	}
}

// Tick implements load.Engine.
func (o *Ours) Tick(at int64, values []int32) error {
	o.grow(len(values) / load.Metrics)
	o.clock.Store(at)
	for i := range o.samples {
		s := &o.samples[i].Sample
		s.At = at
		for m, v := range values[i*load.Metrics : (i+1)*load.Metrics] {
			s.V[metricOf[m]] = v
		}
	}
	return o.store.Append(context.Background(), store.Batch{Site: "fleet", At: at, Samples: o.samples})
}

// Flush implements load.Engine: the newest hour is sealed too, and the store
// opened again.
func (o *Ours) Flush() error {
	o.clock.Add((2 * time.Hour).Milliseconds())
	if err := o.store.Seal(); err != nil {
		return err
	}
	if err := o.end(); err != nil {
		return err
	}
	return o.open()
}

// Sizes implements load.Engine: raw are the blocks with the single samples.
func (o *Ours) Sizes() (raw, all int64, err error) {
	for from := uint64(0); ; {
		rs, err := o.store.Records(from, o.store.Head()+1, false, 1000)
		if err != nil {
			return 0, 0, err
		}
		for _, r := range rs {
			if r.Kind == store.KindBlock && store.Tier(r.Key[1]) == store.Raw {
				raw += int64(len(r.Key) + len(r.Value))
			}
			from = r.Seq + 1
		}
		if len(rs) == 0 {
			break
		}
	}
	if all, err = load.Size(o.dir); err != nil {
		return 0, 0, err
	}
	// The ballast is free space that is kept for opening on a full disk.
	if b, err := os.Stat(filepath.Join(o.dir, "ballast")); err == nil {
		all -= b.Size()
	}
	return raw, all, nil
}

// Last implements load.Engine.
func (o *Ours) Last() (f load.Found, err error) {
	for _, s := range o.store.Last() {
		if v := s.V[store.Latency]; v != store.Missing {
			f.N++
			f.Value += load.Value(load.Latency, v)
		}
	}
	return f, nil
}

func (o *Ours) sum(q store.Query) (f load.Found, err error) {
	for p, err := range o.store.Range(q) {
		if err != nil {
			return f, err
		}
		f.N++
		f.Value += p.Mean
	}
	return f, nil
}

// Hour implements load.Engine.
func (o *Ours) Hour(which int, from, to int64) (load.Found, error) {
	return o.sum(store.Query{Series: series(which), Metric: store.Latency, From: from, To: to, Tier: store.Raw})
}

// Site implements load.Engine.
func (o *Ours) Site(site int, from, to int64) (f load.Found, err error) {
	for i := range load.PathsPerSite {
		one, err := o.sum(store.Query{Series: series(site*load.PathsPerSite + i), Metric: store.Latency, From: from, To: to, Step: time.Minute.Milliseconds()})
		if err != nil {
			return f, err
		}
		f.N += one.N
		f.Value += one.Value
	}
	return f, nil
}

// Fleet implements load.Engine.
func (o *Ours) Fleet(from, to int64) (f load.Found, err error) {
	qs, err := o.store.FleetQuantile(store.Latency, from, to, to-from, 0.95)
	if err != nil || len(qs) == 0 {
		return f, err
	}
	return load.Found{N: int(qs[0].Count), Value: qs[0].Value}, nil
}
