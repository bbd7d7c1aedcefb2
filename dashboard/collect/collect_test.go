package collect

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"patronus/appliance/agent"
	"patronus/appliance/store"
)

// History of all sites arrives, newest first, and what is sealed and appended
// from then on follows by the tail.
func TestCollect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newOrigin("hq", 10), newOrigin("east", 1000), newOrigin("west", 0))
		w.start()
		defer w.close()
		t.Logf("complete after %v", w.complete(20*time.Second))
		if n := w.sink.count("east"); n != 1000 {
			t.Errorf("%d records of east", n)
		}
		if s := w.site("east"); s.State != Live || s.Complete != 1 || s.Gap() != 0 || s.Records != 1000 {
			t.Errorf("%+v", s)
		}
		if v := w.fleet.Version("east"); v != "test" {
			t.Errorf("east runs %q", v)
		}
		if v := w.fleet.Version("nowhere"); v != "" {
			t.Errorf("a site that there is not runs %q", v)
		}
		var east []uint64
		for _, seq := range w.sink.order {
			if seq > 10 { // of east
				east = append(east, seq)
			}
		}
		if !slices.IsSortedFunc(east, func(a, b uint64) int { return int(b) - int(a) }) {
			t.Error("not newest first")
		}
		w.origins["east"].grow(5)
		w.origins["west"].grow(300)
		w.origins["east"].tick(store.Batch{Site: "east", At: 1})
		time.Sleep(3 * time.Second)
		if n, _ := w.sink.ticks("east"); w.sink.count("east") != 1005 || w.sink.count("west") != 300 || n != 1 {
			t.Errorf("%d, %d, %d ticks", w.sink.count("east"), w.sink.count("west"), n)
		}
		if r := w.fleet.Report(); !r.Complete || r.Have != r.Want || r.Want != 1315 {
			t.Errorf("%+v", r)
		}
		for seq, n := range w.origins["east"].served {
			if n != 1 {
				t.Fatalf("record %d was sent %d times", seq, n)
			}
		}
	})
}

// What is not sealed yet comes at once when a tail begins, and from a
// reconnection on only what is new.
func TestCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin("east", 1)
		began := time.Now().UnixMilli()
		for i := range int64(3000) {
			o.open = append(o.open, began+i)
		}
		w := newWorld(t, o)
		w.start()
		defer w.close()
		w.complete(time.Minute)
		time.Sleep(time.Second)
		if _, n := w.sink.ticks("east"); n != 3000 {
			t.Errorf("%d samples", n)
		}
		o.tick(store.Batch{Site: "east", At: began + 2000})
		time.Sleep(time.Second)
		w.net.partition("east", true)
		time.Sleep(time.Minute)
		w.net.partition("east", false)
		for w.site("east").State != Live {
			time.Sleep(time.Second)
		}
		time.Sleep(time.Second)
		if _, n := w.sink.ticks("east"); n != 3000+1000 {
			t.Errorf("%d samples after the second time", n)
		}
	})
}

// A site that was cut off backfills when it returns: nothing twice, the tail
// already flowing.
func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newOrigin("hq", 1), newOrigin("east", 500))
		w.start()
		defer w.close()
		w.complete(20 * time.Second)
		w.net.partition("east", true)
		w.origins["east"].grow(2000)
		time.Sleep(10 * time.Minute)
		if s := w.site("east"); s.State != Away && s.State != Connecting {
			t.Errorf("%s", s.State)
		}
		dials := w.net.dialled()
		time.Sleep(10 * time.Minute)
		if n := w.net.dialled() - dials; n > 60 {
			t.Errorf("%d attempts in ten minutes", n)
		}
		w.net.partition("east", false)
		took := w.complete(2 * time.Minute)
		for w.site("east").State != Live || w.sink.count("east") != 2500 {
			if took += 50 * time.Millisecond; took > 2*time.Minute {
				t.Fatalf("%+v", w.site("east"))
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Logf("complete %v after the partition", took)
		for seq, n := range w.origins["east"].served {
			if n > 2 { // once into the black hole
				t.Fatalf("record %d was sent %d times", seq, n)
			}
		}
	})
}

// A dashboard that dies at any import goes on where it was.
func TestRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newOrigin("east", 30_000), newOrigin("west", 30_000))
		deaths := 0
		for {
			left := 3
			died := make(chan struct{}, 1)
			w.sink.fail = func() error {
				if left--; left < 0 {
					select {
					case died <- struct{}{}:
					default:
					}
					return store.ErrClosed
				}
				return nil
			}
			w.start()
			// As long as imports fail it does not become complete.
			done := false
			for !done {
				select {
				case <-died:
					done = true
				default:
					if w.fleet.Report().Complete {
						done = true
					} else {
						time.Sleep(10 * time.Millisecond)
					}
				}
			}
			if w.fleet.Report().Complete {
				break
			}
			w.end()
			if deaths++; deaths > 100 {
				t.Fatal("never complete")
			}
		}
		defer w.close()
		t.Logf("complete after %d deaths", deaths)
		if w.sink.count("east") != 30_000 || w.sink.count("west") != 30_000 || deaths < 5 {
			t.Errorf("%d, %d", w.sink.count("east"), w.sink.count("west"))
		}
	})
}

// What a site cannot read is told and not asked for again; what arrives damaged
// likewise; the rest is complete.
func TestDamaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin("east", 1000)
		o.damaged = map[uint64]bool{1: true, 500: true, 501: true, 999: true}
		o.unfit = map[uint64]bool{700: true}
		w := newWorld(t, o)
		w.start()
		w.complete(time.Minute)
		want := Ranges{{1, 1}, {500, 501}, {700, 700}, {999, 999}}
		if s := w.site("east"); !slices.Equal(s.Damaged, want) || s.Gap() != 0 {
			t.Errorf("%+v", s)
		}
		if n := w.sink.count("east"); n != 995 {
			t.Errorf("%d records", n)
		}
		// A restart does not try them again.
		w.end()
		imports := w.sink.imports
		w.start()
		defer w.close()
		w.complete(time.Minute)
		time.Sleep(time.Minute)
		if s := w.site("east"); !slices.Equal(s.Damaged, want) || w.sink.imports != imports {
			t.Errorf("%+v after %d more imports", s, w.sink.imports-imports)
		}
	})
}

// Records that retention has taken are no gap; a store that was rebuilt is
// pulled anew, and what was lost with the old one is told.
func TestRebuilt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin("east", 1000)
		o.gone = 400
		w := newWorld(t, o)
		w.start()
		defer w.close()
		w.complete(time.Minute)
		if n := w.sink.count("east"); n != 600 {
			t.Errorf("%d records", n)
		}
		w.net.partition("east", true)
		time.Sleep(time.Minute)
		o.rebuild("east-2", 7, 50)
		w.net.partition("east", false)
		for w.site("east").Epoch != 7 || w.site("east").State != Live {
			time.Sleep(time.Second)
		}
		s := w.site("east")
		if s.Head != 50 || len(s.Before) != 1 || s.Before[0].Node != "east-1" || len(s.Before[0].Missing) != 0 {
			t.Errorf("%+v", s)
		}
		if n := w.sink.count("east"); n != 650 {
			t.Errorf("%d records", n)
		}
		// Set back: the same store with fewer records than were seen of it.
		w.net.partition("east", true)
		time.Sleep(time.Minute)
		o.rebuild("east-2", 7, 20)
		w.net.partition("east", false)
		for len(w.site("east").Before) != 2 {
			time.Sleep(time.Second)
		}
		w.complete(time.Minute)
	})
}

// Ranges may come twice, overlapping and in any order.
func TestReordered(t *testing.T) {
	o := newOrigin("east", 1000)
	f := NewFleet(Options{Sink: newSink()})
	c := newCollector(f, "east")
	if err := c.meet(&agent.Identity{Site: "east", Node: "east-1", Epoch: 1, Head: 1000}); err != nil {
		t.Fatal(err)
	}
	message := func(first, last uint64) *agent.Records {
		sec, err := o.Section(first, last, 1000, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		return (*agent.Records)(&sec)
	}
	for _, r := range []Range{{900, 1000}, {1, 10}, {900, 1000}, {950, 1000}, {5, 300}, {200, 899}, {1, 1000}} {
		if err := c.take(message(r.First, r.Last)); err != nil {
			t.Fatal(err)
		}
	}
	if s := c.report(); s.Gap() != 0 || s.Records != 1000 {
		t.Errorf("%+v", s)
	}
	for _, m := range []*agent.Records{{}, {First: 5, Last: 4}, {First: 1001, Last: 1001, Records: message(7, 7).Records}} {
		if err := c.take(m); err == nil {
			t.Errorf("%+v was taken", m)
		}
	}
}

// Two dashboards collect at the same time; a site that is none gets nothing.
func TestWhoMayRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newOrigin("hq", 1), newOrigin("east", 300), newOrigin("west", 1))
		w.start()
		defer w.close()
		west := NewFleet(Options{Sink: newSink(), Dial: func(ctx context.Context, site string) (net.Conn, error) {
			return w.net.dial(ctx, "west", site)
		}})
		west.SetSites([]string{"east"})
		ctx, stop := context.WithCancel(w.ctx)
		w.running.Go(func() { _ = west.Run(ctx) })
		w.complete(time.Minute)
		time.Sleep(time.Minute)
		stop()
		r := west.Report()
		if r.Complete || r.Sites[0].Records != 0 || r.Sites[0].Err == "" {
			t.Errorf("%+v", r)
		}
		client := agent.NewClient(func(ctx context.Context) (net.Conn, error) { return w.net.dial(ctx, "west", "east") })
		defer client.Close()
		request := &agent.RecordsRequest{Node: "east-1", Epoch: 1, First: 1, Last: 1}
		if err := client.Records(w.ctx, request, nil); !errors.Is(err, agent.ErrRefused) {
			t.Error(err)
		}
		stranger := agent.NewClient(func(ctx context.Context) (net.Conn, error) { return w.net.dial(ctx, "mars", "east") })
		defer stranger.Close()
		if _, err := stranger.Identify(w.ctx); !errors.Is(err, agent.ErrUnavailable) {
			t.Error(err)
		}
		hq := agent.NewClient(func(ctx context.Context) (net.Conn, error) { return w.net.dial(ctx, "hq", "east") })
		defer hq.Close()
		request.Epoch = 2
		if err := hq.Records(w.ctx, request, nil); !errors.Is(err, agent.ErrRebuilt) {
			t.Error(err)
		}
	})
}
