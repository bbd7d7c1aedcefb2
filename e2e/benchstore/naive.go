package benchstore

import (
	"encoding/binary"
	"encoding/json"
	"errors"

	"github.com/dgraph-io/badger/v4"

	"patronus/e2e/benchstore/load"
)

// Naive is badger with its defaults as one would begin: a key of path, metric
// and time, and a JSON document for each sample.
type Naive struct {
	dir   string
	db    *badger.DB
	paths int
}

// row is what a naive store keeps of a sample.
type row struct {
	PathID string  `json:"path_id"`
	Metric string  `json:"metric"`
	Time   int64   `json:"timestamp"`
	Value  float64 `json:"value"`
}

// NewNaive opens a store in a directory.
func NewNaive(dir string) (*Naive, error) {
	n := &Naive{dir: dir}
	return n, n.open()
}

func (n *Naive) open() (err error) {
	n.db, err = badger.Open(badger.DefaultOptions(n.dir).WithLogger(nil))
	return err
}

// Close closes the store.
func (n *Naive) Close() error { return n.db.Close() }

func naiveKey(path, metric string, at int64) []byte {
	k := append([]byte("metrics/"), path...)
	k = append(append(append(k, '/'), metric...), '/')
	return binary.BigEndian.AppendUint64(k, uint64(at))
}

// Tick implements load.Engine.
func (n *Naive) Tick(at int64, values []int32) error {
	n.paths = len(values) / load.Metrics
	b := n.db.NewWriteBatch()
	defer b.Cancel()
	for i, v := range values {
		r := row{load.Path(i / load.Metrics), load.Names[i%load.Metrics], at, load.Value(i%load.Metrics, v)}
		text, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if err := b.Set(naiveKey(r.PathID, r.Metric, at), text); err != nil {
			return err
		}
	}
	return b.Flush()
}

// Flush implements load.Engine.
func (n *Naive) Flush() error { return errors.Join(n.db.Close(), n.open()) }

// Sizes implements load.Engine: there is nothing but samples.
func (n *Naive) Sizes() (raw, all int64, err error) {
	all, err = load.Size(n.dir)
	return all, all, err
}

// Last implements load.Engine.
func (n *Naive) Last() (f load.Found, err error) {
	err = n.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Reverse: true})
		defer it.Close()
		for i := range n.paths {
			it.Seek(naiveKey(load.Path(i), load.Names[load.Latency], 1<<62))
			if !it.Valid() {
				continue
			}
			if err := it.Item().Value(func(text []byte) error {
				var r row
				f.N++
				err := json.Unmarshal(text, &r)
				f.Value += r.Value
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	})
	return f, err
}

// Hour implements load.Engine.
func (n *Naive) Hour(path int, from, to int64) (f load.Found, err error) {
	err = n.each(path, from, to, func(r *row) { f.N++; f.Value += r.Value })
	return f, err
}

func (n *Naive) each(path int, from, to int64, f func(*row)) error {
	return n.db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Prefix = append(append(append([]byte("metrics/"), load.Path(path)...), '/'), load.Names[load.Latency]+"/"...)
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Seek(naiveKey(load.Path(path), load.Names[load.Latency], from)); it.Valid(); it.Next() {
			var r row
			if err := it.Item().Value(func(text []byte) error { return json.Unmarshal(text, &r) }); err != nil {
				return err
			}
			if r.Time >= to {
				return nil
			}
			f(&r)
		}
		return nil
	})
}

// Site implements load.Engine.
func (n *Naive) Site(site int, from, to int64) (f load.Found, err error) {
	for i := range load.PathsPerSite {
		var m load.Minutes
		if err := n.each(site*load.PathsPerSite+i, from, to, func(r *row) { m.Add(r.Time, r.Value) }); err != nil {
			return f, err
		}
		m.Into(&f)
	}
	return f, nil
}

// Fleet implements load.Engine.
func (n *Naive) Fleet(from, to int64) (f load.Found, err error) {
	var all []float64
	for i := range n.paths {
		if err := n.each(i, from, to, func(r *row) { all = append(all, r.Value) }); err != nil {
			return f, err
		}
	}
	return load.Found{N: len(all), Value: load.Quantile(all, 0.95)}, nil
}
