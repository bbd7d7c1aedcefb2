package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rec is record i: its time and first bytes are i.
func rec(i, size int) Record {
	p := make([]byte, max(size, 8))
	binary.LittleEndian.PutUint64(p, uint64(i))
	return Record{From: int64(i), To: int64(i), Items: Items{Samples: 10, Events: 1}, Payload: p}
}

func id(t interface{ Fatalf(string, ...any) }, r Record) int {
	n := int(binary.LittleEndian.Uint64(r.Payload))
	if r.From != int64(n) || r.Items != (Items{Samples: 10, Events: 1}) {
		t.Fatalf("record %d came back as %+v", n, r)
	}
	return n
}

func open(t interface {
	Helper()
	Fatal(...any)
}, dir string, o Options,
) *Queue {
	t.Helper()
	if o.Reserve == 0 {
		o.Reserve = -1
	}
	q, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func reader(t *testing.T, q *Queue, name string) *Reader {
	t.Helper()
	r, err := q.Reader(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// drain takes everything that is there.
func drain(t interface {
	Helper()
	Fatalf(string, ...any)
}, q *Queue, name string,
) (ids []int) {
	t.Helper()
	r, err := q.Reader(name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // Next takes what is there, and does not wait
	for {
		b, err := r.Next(ctx, Limit{Records: 7, Bytes: 1 << 20})
		if errors.Is(err, context.Canceled) {
			return ids
		}
		if err != nil {
			t.Fatalf("next: %v", err)
		}
		for _, rec := range b.Records {
			ids = append(ids, id(t, rec))
		}
		if err := r.Ack(b); err != nil {
			t.Fatalf("ack: %v", err)
		}
	}
}

func TestOrderAndRestart(t *testing.T) {
	dir := t.TempDir()
	o := Options{Readers: []string{"a", "b"}, SegmentBytes: 1000, MaxBytes: 1 << 20}
	q := open(t, dir, o)
	for i := range 50 {
		if err := q.Append(rec(i, 100)); err != nil {
			t.Fatal(err)
		}
	}
	if got := drain(t, q, "a"); len(got) != 50 || !slices.IsSorted(got) {
		t.Fatalf("a got %v", got)
	}
	r := reader(t, q, "b")
	b, err := r.Next(t.Context(), Limit{Records: 20, Bytes: 1 << 20})
	if err != nil || len(b.Records) != 20 {
		t.Fatalf("b got %v, %v", b, err)
	}
	if err := r.Ack(b); err != nil {
		t.Fatal(err)
	}
	b, err = r.Next(t.Context(), Limit{Records: 20, Bytes: 250})
	if err != nil || len(b.Records) != 2 || id(t, b.Records[0]) != 20 {
		t.Fatalf("b got %v, %v", b, err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}

	q = open(t, dir, o)
	if got := drain(t, q, "a"); len(got) != 0 {
		t.Errorf("a got again: %v", got)
	}
	got := drain(t, q, "b")
	if len(got) != 30 || got[0] != 20 || got[29] != 49 {
		t.Errorf("b got %v, want 20 to 49", got)
	}
	if st := q.Stats(); st.Segments != 1 || st.Readers["b"].Backlog != 0 {
		t.Errorf("drained, but %+v", st)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	// A reader that is gone holds nothing back, and one that is new gets what
	// is still there.
	q = open(t, dir, Options{Readers: []string{"c"}})
	defer q.Close()
	if _, err := q.Reader("a"); err == nil {
		t.Error("a is still there")
	}
	if _, err := os.Stat(cursorPath(dir, "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("cursor of a: %v", err)
	}
}

func TestNextWaits(t *testing.T) {
	q := open(t, t.TempDir(), Options{Readers: []string{"a"}})
	r := reader(t, q, "a")
	var both sync.WaitGroup
	both.Go(func() {
		b, err := r.Next(context.Background(), Limit{Records: 1, Bytes: 1})
		if err != nil || id(t, b.Records[0]) != 3 {
			t.Errorf("got %v, %v", b, err)
		}
		if err := r.Ack(b); err != nil {
			t.Error(err)
		}
		if _, err := r.Next(context.Background(), Limit{}); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
	if err := q.Append(rec(3, 10)); err != nil {
		t.Error(err)
	}
	for q.Stats().Readers["a"].Backlog > 0 {
		// The reader acknowledges before it waits again.
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
	both.Wait()
	if err := q.Append(rec(1, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("append after Close: %v", err)
	}
}

// Many appenders share syncs, and each one's records are there when it is told
// so.
func TestConcurrentAppend(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, Options{Readers: []string{"a"}, SegmentBytes: 4000})
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 20 {
				if err := q.Append(rec(w*20+i, 50)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	got := drain(t, q, "a")
	slices.Sort(got)
	if len(got) != 160 || got[0] != 0 || got[159] != 159 {
		t.Errorf("%d records: %v", len(got), got)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
}

// Beyond the bound the oldest go, and the account says exactly which: what was
// delivered and what was lost is together what was appended, once each.
func TestBoundIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "queue")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		o := Options{Readers: []string{"a"}, MaxBytes: 4000, SegmentBytes: 600, Reserve: -1}
		q := open(t, dir, o)
		defer func() { q.Close() }()
		next := 0
		seen := map[int]int{}
		var flying *Batch
		r, _ := q.Reader("a")
		gone, cancel := context.WithCancel(context.Background())
		cancel()
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				n := rapid.IntRange(1, 8).Draw(t, "n")
				var all []Record
				for range n {
					all = append(all, rec(next, rapid.IntRange(8, 300).Draw(t, "size")))
					next++
				}
				if err := q.Append(all...); err != nil {
					t.Fatal(err)
				}
				if st := q.Stats(); st.Bytes > o.MaxBytes {
					t.Fatalf("%d bytes", st.Bytes)
				}
			},
			"next": func(t *rapid.T) {
				if flying != nil {
					t.Skip()
				}
				b, err := r.Next(gone, Limit{Records: rapid.IntRange(1, 9).Draw(t, "records"), Bytes: 2000})
				if err == nil {
					flying = b
				}
			},
			"ack": func(t *rapid.T) {
				if flying == nil {
					t.Skip()
				}
				for _, rec := range flying.Records {
					seen[id(t, rec)]++
				}
				if err := r.Ack(flying); err != nil {
					t.Fatal(err)
				}
				flying = nil
			},
			"fail": func(t *rapid.T) {
				if flying == nil {
					t.Skip()
				}
				r.Fail(flying)
				flying = nil
			},
			"reopen": func(t *rapid.T) {
				if err := q.Close(); err != nil {
					t.Fatal(err)
				}
				q = open(t, dir, o)
				r, _ = q.Reader("a")
				flying = nil
			},
			"": func(*rapid.T) {},
		})
		if flying != nil {
			r.Fail(flying)
		}
		for _, i := range drain(t, q, "a") {
			seen[i]++
		}
		lost := q.Stats().Readers["a"].Lost[Bound]
		if got := len(seen) + int(lost.Records); got != next {
			t.Fatalf("%d appended, %d delivered, %d lost", next, len(seen), lost.Records)
		}
		if lost.Samples != 10*lost.Records {
			t.Fatalf("lost %+v", lost)
		}
		for i, n := range seen {
			if n != 1 {
				t.Fatalf("record %d acknowledged %d times", i, n)
			}
		}
		if lost.Records > 0 && lost.From != lost.To+1-int64(lost.Records) {
			// Holes are where records were delivered between losses.
			for i := lost.From; i <= lost.To; i++ {
				if seen[int(i)] == 0 {
					lost.Records--
				}
			}
			if lost.Records != 0 {
				t.Fatalf("the lost records are not within %d to %d", lost.From, lost.To)
			}
		}
	})
}

func TestLossesAreReportedOnce(t *testing.T) {
	dir := t.TempDir()
	o := Options{Readers: []string{"a"}, MaxBytes: 2000, SegmentBytes: 500}
	q := open(t, dir, o)
	for i := range 30 {
		if err := q.Append(rec(i, 100)); err != nil {
			t.Fatal(err)
		}
	}
	var told []Loss
	refuse := func(l Loss) bool { told = append(told, l); return false }
	accept := func(l Loss) bool { told = append(told, l); return true }
	if err := q.Losses(refuse); err != nil || len(told) != 1 {
		t.Fatalf("%v, %v", told, err)
	}
	want := told[0]
	if want.Reader != "a" || want.Why != Bound || want.From != 0 || want.To != int64(want.Records)-1 || want.Samples != 10*want.Records {
		t.Errorf("lost %+v", want)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, dir, o)
	defer q.Close()
	told = nil
	if err := q.Losses(accept); err != nil || len(told) != 1 || told[0] != want {
		t.Errorf("after a restart: %v, want %v (%v)", told, want, err)
	}
	told = nil
	if err := q.Losses(accept); err != nil || len(told) != 0 {
		t.Errorf("reported again: %v (%v)", told, err)
	}
	if got := drain(t, q, "a"); len(got)+int(want.Records) != 30 || got[len(got)-1] != 29 {
		t.Errorf("got %v, lost %d", got, want.Records)
	}
}

// fill makes a queue of n records in one segment and closes it.
func fill(t *testing.T, n int) (dir, name string, o Options) {
	t.Helper()
	dir = t.TempDir()
	o = Options{Readers: []string{"a"}, SegmentBytes: 1 << 20, Reserve: -1}
	q := open(t, dir, o)
	for i := range n {
		if err := q.Append(rec(i, 40)); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, segmentPath(dir, 1), o
}

// Wherever a crash tears the file, what is whole is delivered and appending
// goes on.
func TestTornTail(t *testing.T) {
	const n = 4
	dir, name, o := fill(t, n)
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	size := frameHead + 40
	for cut := range whole {
		if err := os.WriteFile(name, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(cursorPath(dir, "a")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		q := open(t, dir, o)
		want := max(cut-int(segmentHead), 0) / size
		if err := q.Append(rec(99, 40)); err != nil {
			t.Fatal(err)
		}
		got := drain(t, q, "a")
		if len(got) != want+1 || got[want] != 99 {
			t.Fatalf("cut at %d: got %v, want %d and the new one", cut, got, want)
		}
		if lost := q.Stats().Readers["a"].Lost; len(lost) != 0 {
			t.Fatalf("cut at %d: lost %v", cut, lost)
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// One flipped bit costs at most the record that it is in, and never gives a
// wrong one.
func TestBitFlips(t *testing.T) {
	const n = 4
	dir, name, o := fill(t, n)
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for at := range len(whole) - frameHead - 40 { // a damaged last head looks torn
		bad := slices.Clone(whole)
		bad[at] ^= 1 << (at % 8)
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(cursorPath(dir, "a")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		q, err := Open(dir, o)
		if at == int(segmentHead)-1 && errors.Is(err, ErrVersion) {
			continue // the version itself
		}
		if err != nil {
			t.Fatal(err)
		}
		got := drain(t, q, "a")
		want := n - 1
		if at < int(segmentHead) {
			want = n
		}
		if len(got) != want {
			t.Fatalf("bit at %d: got %v", at, got)
		}
		lost := q.Stats().Readers["a"].Lost[Damaged]
		if want < n && lost.Records == 0 && lost.Unknown == 0 {
			t.Fatalf("bit at %d: nothing counted", at)
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDiskReserve(t *testing.T) {
	dir := t.TempDir()
	free := int64(1 << 30)
	o := Options{
		Readers: []string{"a"}, SegmentBytes: 500, MaxBytes: 1 << 20, Reserve: 1 << 20,
		Free: func(string) (int64, error) { return free, nil },
	}
	q := open(t, dir, o)
	defer q.Close()
	for i := range 10 {
		if err := q.Append(rec(i, 100)); err != nil {
			t.Fatal(err)
		}
	}
	free = 1 << 20
	if err := q.Append(rec(10, 100)); !errors.Is(err, ErrDiskFull) {
		t.Fatalf("append: %v", err)
	}
	lost := q.Stats().Readers["a"].Lost[Disk]
	if lost.Records != 11 || lost.From != 0 || lost.To != 10 {
		t.Errorf("lost %+v", lost)
	}
	free = 1 << 30
	if err := q.Append(rec(11, 100)); err != nil {
		t.Fatal(err)
	}
	if got := drain(t, q, "a"); len(got) != 1 || got[0] != 11 {
		t.Errorf("got %v", got)
	}
}

// A write that fails leaves the queue usable.
func TestFailedWrite(t *testing.T) {
	q := open(t, t.TempDir(), Options{Readers: []string{"a"}})
	defer q.Close()
	if err := q.Append(rec(0, 10)); err != nil {
		t.Fatal(err)
	}
	if err := q.write.file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := q.Append(rec(1, 10)); err == nil {
		t.Fatal("append to a closed file succeeded")
	}
	if err := q.Append(rec(2, 10)); err != nil {
		t.Fatal(err)
	}
	if got := drain(t, q, "a"); !slices.Equal(got, []int{0, 2}) {
		t.Errorf("got %v", got)
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir, Options{Readers: []string{"../a"}}); err == nil {
		t.Error("a reader named ../a")
	}
	q := open(t, dir, Options{Readers: []string{"a"}, MaxBytes: 1000})
	if err := q.Append(rec(0, 900)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a record of 900 bytes in a queue of 1000: %v", err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	newer := strings.TrimSuffix(segmentMagic, "\x01") + "\x02"
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%016x.seg", 1)), []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrVersion) {
		t.Errorf("newer layout: %v", err)
	}
}

func BenchmarkAppend(b *testing.B) {
	q := open(b, b.TempDir(), Options{Readers: []string{"a"}, MaxBytes: 256 << 20})
	defer q.Close()
	r := rec(1, 4096)
	b.ReportAllocs()
	b.SetBytes(4096)
	for b.Loop() {
		if err := q.Append(r); err != nil {
			b.Fatal(err)
		}
	}
}
