package benchstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"patronus/appliance/store"
	"patronus/e2e/benchstore/load"
)

// The questions, in the order of the table.
var questions = [...]string{"last", "hour", "site", "fleet"}

const (
	// questionHour is the hour of the day that questions about an hour are about.
	questionHour = 22
	chunks       = 4
	seed         = 20261125
)

// Size is how much is measured.
type Size struct {
	Paths     int // of the fleet that all contenders hold for 24 h
	WidePaths int // of the fleet that only ours takes in, for its memory
	Rounds    int // of questions
}

// Result is what was measured.
type Result struct {
	At           time.Time
	Took         time.Duration
	Fleet, Wide  load.Shape
	Exact        map[string]load.Found // answers computed from the samples
	All          []*contender
	WideIngest   load.Answer
	WideLast     load.Answer
	Ninety       time.Duration // the question about 90 days
	NinetyPoints int
	Before       string // load average
	After        string
}

// Run measures. bin has the programs of the rivals' modules; progress goes to
// log. It takes minutes.
func Run(bin string, size Size, log io.Writer) (*Result, error) {
	dir, err := os.MkdirTemp("", "patronus-benchstore-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) // data of one run
	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(log, "%6.1f s  "+format+"\n", append([]any{time.Since(began).Seconds()}, args...)...)
	}
	const day = 24 * time.Hour
	start := began.Truncate(day).Add(-2 * day).UnixMilli()
	r := &Result{At: began.UTC(), Before: loadAverage(), Exact: map[string]load.Found{}}
	r.Fleet = load.Shape{Paths: uint32(size.Paths), Ticks: 8640, Step: 10_000, Start: start}
	r.Wide = load.Shape{Paths: uint32(size.WidePaths), Ticks: 480, Step: 10_000, Start: start}
	fleet := filepath.Join(dir, "fleet")
	if err := load.Write(fleet, r.Fleet, seed); err != nil {
		return nil, err
	}
	if err := r.exact(fleet); err != nil {
		return nil, err
	}
	say("samples written: %d of %d paths", r.Fleet.Samples(), size.Paths)
	r.All = contenders(dir, bin, int(r.Fleet.Ticks))
	defer func() {
		for _, c := range r.All {
			if c.close != nil {
				_ = c.close() // its data is thrown away
			}
		}
	}()
	r.ingest(fleet, say)
	for range size.Rounds {
		r.round(fleet)
	}
	say("%d rounds of questions", size.Rounds)
	if err := r.wide(dir, say); err != nil {
		return nil, err
	}
	if err := r.ninety(filepath.Join(dir, "ninety")); err != nil {
		return nil, err
	}
	say("90 days of one path: %v", r.Ninety)
	r.Took, r.After = time.Since(began), loadAverage()
	return r, nil
}

// ingest gives everyone the samples, in chunks that take turns.
func (r *Result) ingest(file string, say func(string, ...any)) {
	each := int(r.Fleet.Ticks) / chunks
	for i := range chunks {
		for _, c := range r.All {
			from, to := max(c.from, i*each), min(c.to, (i+1)*each)
			if c.unavailable == "" && from < to {
				c.take(load.Command{Do: "ingest", File: file, From: from, To: to})
			}
		}
		say("chunk %d of %d", i+1, chunks)
	}
	for _, c := range r.All {
		if c.unavailable == "" {
			c.take(load.Command{Do: "flush"})
		}
		if c.unavailable == "" {
			a, err := c.ask(load.Command{Do: "sizes"})
			if c.sizes = a; err != nil {
				c.unavailable = err.Error()
			}
		}
		if c.unavailable != "" {
			say("%s: %s", c.name, c.unavailable)
		} else {
			say("%s: %.2f CPU s, %d MB", c.name, c.ingest.CPU, c.ingest.Peak>>20)
		}
	}
}

func (c *contender) take(do load.Command) {
	a, err := c.ask(do)
	if err != nil {
		c.unavailable = err.Error()
		return
	}
	c.ingest.CPU += a.CPU
	c.ingest.Wall += a.Wall
	c.ingest.Peak = max(c.ingest.Peak, a.Peak)
}

// command is a question: about the path 137, its site, an hour of the evening,
// the whole day.
func (r *Result) command(question, file string) load.Command {
	hour := int(r.Fleet.Ticks) / 24
	c := load.Command{Do: question, File: file, From: questionHour * hour, To: (questionHour + 1) * hour, Repeat: 3}
	switch question {
	case "hour":
		c.Which = 137 % int(r.Fleet.Paths)
	case "site":
		c.Which = 13 % (int(r.Fleet.Paths) / load.PathsPerSite)
	case "fleet":
		c.From, c.To, c.Repeat = 0, int(r.Fleet.Ticks), 1
	}
	return c
}

func (r *Result) round(file string) {
	for _, q := range questions {
		for _, c := range r.All {
			if c.unavailable != "" {
				continue
			}
			a, err := c.ask(r.command(q, file))
			if err != nil {
				a.Err = err.Error()
			}
			c.questions[q] = append(c.questions[q], a)
		}
	}
}

// exact answers the questions from the samples themselves.
func (r *Result) exact(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	var all []float64
	last := map[int]float64{}
	var hour load.Found
	minutes := make([]load.Minutes, r.Fleet.Paths)
	h := r.command("hour", file)
	from, to := r.Fleet.At(h.From), r.Fleet.At(h.To)
	err = load.Each(f, r.Fleet, 0, int(r.Fleet.Ticks), func(at int64, values []int32) error {
		for i := range int(r.Fleet.Paths) {
			v := load.Value(load.Latency, values[i*load.Metrics+load.Latency])
			all = append(all, v)
			last[i] = v
			if at < from || at >= to {
				continue
			}
			minutes[i].Add(at, v)
			if i == h.Which {
				hour.N++
				hour.Value += v
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.Exact["hour"] = hour
	var lasts, site load.Found
	for _, v := range last {
		lasts.N++
		lasts.Value += v
	}
	which := r.command("site", file).Which
	for i := range load.PathsPerSite {
		minutes[which*load.PathsPerSite+i].Into(&site)
	}
	r.Exact["last"], r.Exact["site"] = lasts, site
	r.Exact["fleet"] = load.Found{N: len(all), Value: load.Quantile(all, 0.95)}
	return nil
}

// wide lets a new process of ours take in many paths.
func (r *Result) wide(dir string, say func(string, ...any)) error {
	file := filepath.Join(dir, "wide.samples")
	if err := load.Write(file, r.Wide, seed); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ask, stop, err := child(self, dashboardEnv[:], "-serve", "ours", "-dir", filepath.Join(dir, "wide"))
	if err != nil {
		return err
	}
	if r.WideIngest, err = ask(load.Command{Do: "ingest", File: file, To: int(r.Wide.Ticks)}); err == nil {
		r.WideLast, err = ask(load.Command{Do: "last", Repeat: 20})
	}
	say("%d paths: %.1f CPU s, %d MB", r.Wide.Paths, r.WideIngest.CPU, r.WideIngest.Peak>>20)
	return errors.Join(err, stop())
}

// ninety fills a store with 90 days of two paths, a sample a minute, and asks
// for one of them by the hour.
func (r *Result) ninety(dir string) error {
	const days = 90
	step := time.Minute.Milliseconds()
	end := r.At.Truncate(time.Hour).UnixMilli()
	from := end - days*24*60*step
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	clock := from
	s, err := store.Open(dir, store.Options{Dashboard: true, Now: func() time.Time { return time.UnixMilli(clock) }})
	if err != nil {
		return err
	}
	var b store.Batch
	for at := from; at < end; at += 60 * step {
		b = store.Batch{Site: load.Site(0), At: at + 59*step, Samples: b.Samples[:0]}
		for p := range 2 {
			for i := range int64(60) {
				sm := store.SeriesSample{Series: series(p), Sample: store.Sample{At: at + i*step}}
				for m := range sm.V {
					sm.V[m] = int32((at/step+i*7+int64(m*p))%1000) + 100
				}
				b.Samples = append(b.Samples, sm)
			}
		}
		if err := s.Append(context.Background(), b); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	clock = end
	if err := s.Seal(); err != nil {
		return errors.Join(err, s.Close())
	}
	r.Ninety = time.Hour
	for range 20 {
		began, n := time.Now(), 0
		for _, err := range s.Range(store.Query{Series: series(1), Metric: store.Latency, From: from, To: end, Step: 60 * step}) {
			if err != nil {
				return errors.Join(err, s.Close())
			}
			n++
		}
		r.Ninety, r.NinetyPoints = min(r.Ninety, time.Since(began)), n
	}
	return s.Close()
}
