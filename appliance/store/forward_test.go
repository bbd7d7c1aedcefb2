package store

import (
	"context"
	"errors"
	"testing"
	"time"
)

// sink is a Forward that counts what it got of each site's times.
type sink struct {
	from    int64
	samples map[SeriesSample]int
	flows   int
	events  map[string]int
	err     error
}

func (k *sink) From() (int64, bool) { return k.from, true }

func (k *sink) Put(_ context.Context, b Batch) error {
	if k.err != nil {
		return k.err
	}
	for i := range b.Samples {
		k.samples[b.Samples[i]]++
	}
	k.flows += len(b.Flows)
	for i := range b.Events {
		k.events[b.Events[i].ID]++
	}
	return nil
}

// What a dashboard got live is not forwarded again when it comes sealed, and
// what it did not get is.
func TestForward(t *testing.T) {
	start := time.UnixMilli(1_700_000_000_000 - 1_700_000_000_000%hourMs)
	now := start
	clock := func() time.Time { return now }
	site, err := Open(t.TempDir(), Options{Site: "east", Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer site.Close()
	k := &sink{from: start.UnixMilli() + 60_000, samples: map[SeriesSample]int{}, events: map[string]int{}}
	board, err := Open(t.TempDir(), Options{Site: "*", Dashboard: true, Now: clock, Forward: k})
	if err != nil {
		t.Fatal(err)
	}
	defer board.Close()
	const ticks = 300
	for i := range ticks {
		now = start.Add(time.Duration(i) * time.Second)
		at := now.UnixMilli()
		s := SeriesSample{Series: Series{Site: "east", Path: "east.wan0~hq.wan0"}}
		s.At = at
		b := Batch{Site: "east", At: at, Samples: []SeriesSample{s}, Flows: []FlowRecord{{At: at, ID: "f", Change: "updated"}}, Events: []Event{{ID: start.Add(time.Duration(i)).String(), At: at, Type: "x"}}}
		if err := site.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if i < 200 { // then it is cut off
			for range 2 { // a tick may come twice
				if err := board.Append(t.Context(), b); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	now = start.Add(2 * time.Hour)
	if err := errors.Join(site.flush(), site.Seal()); err != nil {
		t.Fatal(err)
	}
	recs, err := site.Records(1, site.Head(), true, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := board.Import("east", recs, nil); err != nil {
		t.Fatal(err)
	}
	if len(k.samples) != ticks-60 || k.flows != ticks-60 || len(k.events) != ticks-60 {
		t.Errorf("forwarded %d samples, %d flow records, %d events, want %d of each", len(k.samples), k.flows, len(k.events), ticks-60)
	}
	for s, n := range k.samples {
		if n != 1 {
			t.Errorf("sample of %d was forwarded %d times", s.At, n)
		}
	}
	for id, n := range k.events {
		if n != 1 {
			t.Errorf("event %s was forwarded %d times", id, n)
		}
	}
	// What the queue does not take is counted, and stored all the same.
	k.err = errors.New("full")
	if err := board.Append(t.Context(), Batch{Site: "east", At: now.UnixMilli(), Events: []Event{{ID: "last", Type: "x"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := board.Event("last"); err != nil || board.Stats().Unforwarded != 1 {
		t.Errorf("event: %v; %d not forwarded", err, board.Stats().Unforwarded)
	}
}
