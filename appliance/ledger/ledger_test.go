package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) {
	child() // does not return in a child process
	goleak.VerifyTestMain(m,
		// Workers of libraries that live as long as the process.
		goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

func open(t testing.TB, dir string) *Ledger {
	t.Helper()
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func put(t testing.TB, l *Ledger, kv ...string) {
	t.Helper()
	if err := l.Update(t.Context(), func(tx *Tx) error {
		for i := 0; i < len(kv); i += 2 {
			if err := tx.Put(kv[i], []byte(kv[i+1])); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// dump is everything as text.
func dump(t testing.TB, l *Ledger) map[string]string {
	t.Helper()
	all := map[string]string{}
	if err := l.View(func(tx *Tx) error {
		return tx.Scan("", "", func(key string, v []byte) bool {
			all[key] = string(v)
			return true
		})
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTransactions(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	put(t, l, "user/alice", "1", "user/bob", "2", "token/x", strings.Repeat("long ", 1000))
	boom := errors.New("boom")
	if err := l.Update(t.Context(), func(tx *Tx) error {
		if err := errors.Join(tx.Put("user/carol", nil), tx.Delete("user/bob")); err != nil {
			return err
		}
		if _, err := tx.Get("user/bob"); !errors.Is(err, ErrNotFound) {
			t.Errorf("own deletion: %v", err)
		}
		if v, err := tx.Get("user/carol"); err != nil || len(v) != 0 {
			t.Errorf("own write: %q, %v", v, err)
		}
		var keys []string
		err := tx.Scan("user/", "user/alice", func(key string, _ []byte) bool { keys = append(keys, key); return true })
		if err != nil || !slices.Equal(keys, []string{"user/carol"}) {
			t.Errorf("scan with own writes: %v, %v", keys, err)
		}
		return boom
	}); err != boom {
		t.Errorf("an error of f came back as %v", err)
	}
	want := map[string]string{"user/alice": "1", "user/bob": "2", "token/x": strings.Repeat("long ", 1000)}
	if got := dump(t, l); !maps.Equal(got, want) {
		t.Errorf("after an undone transaction: %v", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	if got := dump(t, l); !maps.Equal(got, want) {
		t.Errorf("after opening again: %v", got)
	}
	if n := l.Commits(); n != 1 {
		t.Errorf("%d commits, want 1", n)
	}
	if err := l.Verify(); err != nil {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	l := open(t, t.TempDir())
	random := make([]byte, 2<<20)
	for i, x := 0, uint32(1); i < len(random); i++ {
		x = x*1664525 + 1013904223
		random[i] = byte(x >> 24)
	}
	for name, c := range map[string]struct {
		want error
		f    func(tx *Tx) error
	}{
		"empty key":    {ErrInvalid, func(tx *Tx) error { return tx.Put("", nil) }},
		"long key":     {ErrInvalid, func(tx *Tx) error { return tx.Put(strings.Repeat("k", MaxKey+1), nil) }},
		"bytes":        {ErrInvalid, func(tx *Tx) error { return tx.Delete("\xff") }},
		"huge":         {ErrTooBig, func(tx *Tx) error { return tx.Put("k", make([]byte, MaxValue+1)) }},
		"incompress":   {ErrTooBig, func(tx *Tx) error { return tx.Put("k", random) }},
		"no user":      {ErrInvalid, func(tx *Tx) error { return tx.Audit(AuditRecord{Action: "x"}) }},
		"not JSON":     {ErrInvalid, func(tx *Tx) error { return tx.Audit(AuditRecord{User: "u", Action: "x", After: []byte("{")}) }},
		"many in one":  {ErrTooBig, func(tx *Tx) error { return fill(tx, random) }},
		"get of empty": {ErrNotFound, func(tx *Tx) error { _, err := tx.Get(""); return err }},
	} {
		if err := l.Update(t.Context(), c.f); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := l.View(func(tx *Tx) error { return tx.Put("k", nil) }); !errors.Is(err, ErrInvalid) {
		t.Errorf("write in a View: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Update(ctx, func(*Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %v", err)
	}
	if n := l.Commits(); n != 0 {
		t.Errorf("%d commits of refused transactions", n)
	}
	put(t, l, "still", "works", "big", strings.Repeat("text ", 2<<20))
	if n := len(dump(t, l)["big"]); n != 10<<20 {
		t.Errorf("a long text came back with %d bytes", n)
	}
}

func fill(tx *Tx, random []byte) error {
	for i := range 10 {
		if err := tx.Put("k"+strconv.Itoa(i), random[:900<<10]); err != nil {
			return err
		}
	}
	return nil
}

// A claim is made once, however many try at the same time.
func TestCompareAndSet(t *testing.T) {
	l := open(t, t.TempDir())
	put(t, l, "claim", "free")
	taken := errors.New("taken")
	var won atomic.Int32
	var g sync.WaitGroup
	for i := range 100 {
		g.Go(func() {
			err := l.Update(t.Context(), func(tx *Tx) error {
				v, err := tx.Get("claim")
				if err != nil {
					return err
				}
				if string(v) != "free" {
					return taken
				}
				return errors.Join(tx.Put("claim", []byte(strconv.Itoa(i))),
					tx.Audit(AuditRecord{User: strconv.Itoa(i), Action: "claim"}))
			})
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, taken):
				t.Error(err)
			}
		})
	}
	g.Wait()
	if won.Load() != 1 {
		t.Errorf("%d won", won.Load())
	}
	if n, err := l.VerifyAudit(); n != 1 || err != nil {
		t.Errorf("%d audit records, %v", n, err)
	}
}

// No increment is lost, and a watcher sees every one in order.
func TestCountersAndWatch(t *testing.T) {
	l := open(t, t.TempDir())
	var seen []int
	stop := l.Watch("n", func(keys []string) {
		if !slices.Equal(keys, []string{"n"}) {
			t.Errorf("keys %v", keys)
		}
		// A watcher may use the ledger.
		if err := l.View(func(tx *Tx) error {
			v, err := tx.Get("n")
			n, _ := strconv.Atoi(string(v))
			seen = append(seen, n)
			return err
		}); err != nil {
			t.Error(err)
		}
	})
	const each, goroutines = 10, 10
	var g sync.WaitGroup
	for range goroutines {
		g.Go(func() {
			for range each {
				if err := l.Update(t.Context(), func(tx *Tx) error {
					v, err := tx.Get("n")
					if err != nil && !errors.Is(err, ErrNotFound) {
						return err
					}
					n, _ := strconv.Atoi(string(v))
					return errors.Join(tx.Put("n", []byte(strconv.Itoa(n+1))), tx.Audit(AuditRecord{User: "u", Action: "count"}))
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	g.Wait()
	stop()
	put(t, l, "n2", "")
	if got := dump(t, l)["n"]; got != strconv.Itoa(each*goroutines) {
		t.Errorf("n is %s", got)
	}
	if len(seen) != each*goroutines || !slices.IsSorted(seen) || seen[len(seen)-1] != each*goroutines {
		t.Errorf("watcher saw %v", seen)
	}
	if n, err := l.VerifyAudit(); n != each*goroutines || err != nil {
		t.Errorf("%d audit records, %v", n, err)
	}
}

// A watcher that writes is called for its own change after the one at hand.
func TestWatchWrites(t *testing.T) {
	l := open(t, t.TempDir())
	var order []string
	l.Watch("", func(keys []string) {
		order = append(order, keys...)
		if keys[0] == "a" {
			put(t, l, "b", "")
			order = append(order, "end of a")
		}
	})
	put(t, l, "a", "")
	if want := []string{"a", "end of a", "b"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
}

// A long transaction among many short ones ends.
func TestLongTransactionEnds(t *testing.T) {
	l := open(t, t.TempDir())
	put(t, l, "a", "0")
	ctx, cancel := context.WithCancel(t.Context())
	var g sync.WaitGroup
	g.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			put(t, l, "a", strconv.Itoa(i))
		}
	})
	runs := 0
	if err := l.Update(t.Context(), func(tx *Tx) error {
		runs++
		if _, err := tx.Get("a"); err != nil {
			return err
		}
		if runs <= alone { // until it runs alone, somebody else is faster
			// The first one may have been visible already when this began.
			for n := l.Commits(); l.Commits() < n+2; {
			}
		}
		return tx.Put("b", nil)
	}); err != nil {
		t.Error(err)
	}
	cancel()
	g.Wait()
	if runs != alone+1 {
		t.Errorf("ran %d times", runs)
	}
}

// The ledger is a map, whatever is done to it, also across opening again.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir := tempDir(t)
		l, err := Options{memTable: 1 << 20}.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		model := map[string]string{}
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			if rapid.IntRange(0, 7).Draw(t, "reopen") == 0 {
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				if l, err = (Options{memTable: 1 << 20}).Open(dir); err != nil {
					t.Fatal(err)
				}
			}
			next := maps.Clone(model)
			undo := rapid.IntRange(0, 4).Draw(t, "undo") == 0
			undone := errors.New("undone")
			err := l.Update(context.Background(), func(tx *Tx) error {
				for range rapid.IntRange(0, 5).Draw(t, "writes") {
					key := rapid.SampledFrom([]string{"a", "a/b", "a/c", "b", "b/", "ü"}).Draw(t, "key")
					if rapid.Bool().Draw(t, "delete") {
						delete(next, key)
						if err := tx.Delete(key); err != nil {
							return err
						}
					} else {
						v := strings.Repeat(rapid.String().Draw(t, "value"), rapid.SampledFrom([]int{1, 1, 300}).Draw(t, "times"))
						next[key] = v
						if err := tx.Put(key, []byte(v)); err != nil {
							return err
						}
					}
				}
				if undo {
					return undone
				}
				return nil
			})
			switch {
			case undo && errors.Is(err, undone):
			case err != nil:
				t.Fatal(err)
			default:
				model = next
			}
			prefix := rapid.SampledFrom([]string{"", "a", "a/", "b"}).Draw(t, "prefix")
			after := rapid.SampledFrom([]string{"", "a", "a/b", "b"}).Draw(t, "after")
			var got, want []string
			if err := l.View(func(tx *Tx) error {
				return tx.Scan(prefix, after, func(key string, v []byte) bool { got = append(got, key+"="+string(v)); return true })
			}); err != nil {
				t.Fatal(err)
			}
			for _, key := range slices.Sorted(maps.Keys(model)) {
				if strings.HasPrefix(key, prefix) && (after == "" || key > after) {
					want = append(want, key+"="+model[key])
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("scan %q after %q: %q, want %q", prefix, after, got, want)
			}
		}
	})
}

func TestSumIsAGroup(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 32, 32), 1, 8).Draw(t, "sums")
		var s sum
		for _, b := range all {
			s.add(sum(b))
		}
		for _, b := range rapid.Permutation(all).Draw(t, "order") {
			s.sub(sum(b))
		}
		if s != (sum{}) {
			t.Fatalf("rest %x", s)
		}
	})
}

func FuzzEnvelope(f *testing.F) {
	c, err := newCodec()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(c.close)
	for _, v := range []string{"", "x", strings.Repeat("y", 5000)} {
		data, _ := c.seal("key", []byte(v))
		f.Add("key", data)
		f.Add("other", data)
	}
	f.Add("k", bytes.Repeat([]byte{1}, 100))
	f.Fuzz(func(t *testing.T, key string, data []byte) {
		value, s, err := c.open(key, data)
		if err != nil {
			if value != nil {
				t.Error("a value with an error")
			}
			return
		}
		if s != sumOf(key, value) {
			t.Error("a value that its sum does not fit")
		}
		again, s2 := c.seal(key, value)
		if got, _, err := c.open(key, again); err != nil || s2 != s || !bytes.Equal(got, value) {
			t.Errorf("sealed again: %v", err)
		}
		if _, _, err := c.open(key+"x", data); err == nil {
			t.Error("opens under another key")
		}
	})
}

// Any flipped bit and any cut of an envelope is found.
func TestEnvelopeDamage(t *testing.T) {
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for _, v := range []string{"", "short", strings.Repeat("long and longer ", 100)} {
		data, _ := c.seal("key", []byte(v))
		for i := range len(data) * 8 {
			bad := slices.Clone(data)
			bad[i/8] ^= 1 << (i % 8)
			if got, _, err := c.open("key", bad); err == nil && string(got) != v {
				t.Fatalf("bit %d of %d: %q", i, len(data)*8, got)
			}
		}
		for n := range data {
			if _, _, err := c.open("key", data[:n]); err == nil {
				t.Fatalf("%d of %d bytes are enough", n, len(data))
			}
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	l := open(b, b.TempDir())
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		put(b, l, fmt.Sprintf("key/%d", i%100), "value")
	}
}

func BenchmarkGet(b *testing.B) {
	l := open(b, b.TempDir())
	put(b, l, "key", "value")
	b.ReportAllocs()
	for b.Loop() {
		if err := l.View(func(tx *Tx) error { _, err := tx.Get("key"); return err }); err != nil {
			b.Fatal(err)
		}
	}
}
