// Command tsdb is the storage engine of Prometheus, embedded, as a contender of
// e2e/benchstore: it answers load.Serve's commands on stdin.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"patronus/e2e/benchstore/load"
)

func main() {
	dir := flag.String("dir", "", "where the data goes")
	flag.Parse()
	if err := run(*dir); err != nil {
		fmt.Fprintln(os.Stderr, "tsdb:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	o := tsdb.DefaultOptions()
	o.RetentionDuration = (10 * 365 * 24 * time.Hour).Milliseconds()
	db, err := tsdb.Open(dir, slog.New(slog.NewTextHandler(io.Discard, nil)), nil, o, nil)
	if err != nil {
		return err
	}
	defer db.Close() // the data is thrown away
	return load.Serve(&engine{dir: dir, db: db}, os.Stdin, os.Stdout)
}

// engine implements load.Engine.
type engine struct {
	dir    string
	db     *tsdb.DB
	labels []labels.Labels
	refs   []storage.SeriesRef
	last   int64
}

func (e *engine) Tick(at int64, values []int32) error {
	for i := len(e.labels); i < len(values); i++ {
		path := i / load.Metrics
		e.labels = append(e.labels, labels.FromStrings("__name__", load.Names[i%load.Metrics], "path", load.Path(path), "site", load.Site(path)))
		e.refs = append(e.refs, 0)
	}
	e.last = at
	a := e.db.Appender(context.Background())
	for i, v := range values {
		ref, err := a.Append(e.refs[i], e.labels[i], at, load.Value(i%load.Metrics, v))
		if err != nil {
			return err
		}
		e.refs[i] = ref
	}
	return a.Commit()
}

// Flush writes all of the head into blocks.
func (e *engine) Flush() error {
	if err := e.db.Compact(context.Background()); err != nil {
		return err
	}
	head := e.db.Head()
	return e.db.CompactHead(tsdb.NewRangeHead(head, head.MinTime(), head.MaxTime()))
}

func (e *engine) Sizes() (raw, all int64, err error) {
	if all, err = load.Size(e.dir); err != nil {
		return 0, 0, err
	}
	for _, b := range e.db.Blocks() {
		n, err := load.Size(filepath.Join(e.dir, b.Meta().ULID.String()))
		if err != nil {
			return 0, 0, err
		}
		raw += n
	}
	return raw, all, nil
}

// each calls f with the samples of the series that match.
func (e *engine) each(from, to int64, f func(at int64, v float64), end func(), ms ...*labels.Matcher) error {
	q, err := e.db.Querier(from, to-1)
	if err != nil {
		return err
	}
	defer q.Close() // only read
	ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, "__name__", load.Names[load.Latency]))
	set := q.Select(context.Background(), false, nil, ms...)
	var it chunkenc.Iterator
	for set.Next() {
		it = set.At().Iterator(it)
		for it.Next() != chunkenc.ValNone {
			f(it.At())
		}
		if it.Err() != nil {
			return it.Err()
		}
		end()
	}
	return set.Err()
}

func path(i int) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, "path", load.Path(i))
}

// Last looks back five minutes, as an instant query does.
func (e *engine) Last() (f load.Found, err error) {
	last := math.NaN()
	err = e.each(e.last-5*60_000, e.last+1, func(_ int64, v float64) { last = v }, func() {
		f.N++
		f.Value += last
	})
	return f, err
}

func (e *engine) Hour(which int, from, to int64) (f load.Found, err error) {
	err = e.each(from, to, func(_ int64, v float64) { f.N++; f.Value += v }, func() {}, path(which))
	return f, err
}

func (e *engine) Site(site int, from, to int64) (f load.Found, err error) {
	var m load.Minutes
	err = e.each(from, to, m.Add, func() { m.Into(&f); m = load.Minutes{} },
		labels.MustNewMatcher(labels.MatchEqual, "site", load.Site(site*load.PathsPerSite)))
	return f, err
}

func (e *engine) Fleet(from, to int64) (load.Found, error) {
	var all []float64
	err := e.each(from, to, func(_ int64, v float64) { all = append(all, v) }, func() {})
	return load.Found{N: len(all), Value: load.Quantile(all, 0.95)}, err
}
