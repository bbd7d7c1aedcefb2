package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"

	"patronus/netstack/flow"
)

func flowAt(n int, at int64) FlowRecord {
	return FlowRecord{
		At: at, ID: fmt.Sprintf("tcp-10.1.1.5-%d-10.2.0.7-443", 40000+n), Change: "started", Protocol: "TCP",
		Src: netip.MustParseAddr("10.1.1.5"), Dst: netip.MustParseAddr("10.2.0.7"), SrcPort: uint16(40000 + n), DstPort: 443,
		Status: "active", Path: series(n).Path, Class: "voice", Policy: "a/b", Started: at, Seen: at,
		Forward:  flow.Counts{Packets: 1, Bytes: 100},
		Decision: &flow.Record{Policy: "a/b", Reason: "rule", FromLabels: map[string]string{"app": "web"}},
	}
}

// allFlows walks all pages.
func allFlows(t *testing.T, s *Store, f FlowFilter, limit int) (out []FlowRecord) {
	t.Helper()
	p := Page{Limit: limit}
	for {
		part, next, err := s.Flows(f, p)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, part...)
		if next == "" {
			return out
		}
		p.After = next
	}
}

func TestFlows(t *testing.T) {
	dir := t.TempDir()
	c := &clock{noon}
	s := open(t, dir, Options{Now: c.now})
	const flows = 700
	for n := range flows {
		at := noon + int64(n)*1000
		appendAll(t, s, Batch{Site: "hq", At: at, Flows: []FlowRecord{flowAt(n, at)}})
		if n == 300 {
			if err := s.flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	end := flowAt(5, noon)
	end.At, end.Ended, end.Seen, end.Change = noon+flows*1000, noon+flows*1000, noon+flows*1000, "ended"
	end.Started = noon + 5000
	end.Forward = flow.Counts{Packets: 11, Bytes: 1100}
	appendAll(t, s, Batch{Site: "hq", At: end.At, Flows: []FlowRecord{end}})
	for _, when := range []string{"in memory", "flushed", "opened again"} {
		switch when {
		case "flushed":
			if err := s.flush(); err != nil {
				t.Fatal(err)
			}
		case "opened again":
			crashed := t.TempDir()
			if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			s = open(t, crashed, Options{Now: c.now})
		}
		if got := allFlows(t, s, FlowFilter{}, 64); len(got) != flows+1 || got[0].Change != "ended" || got[1].At != noon+(flows-1)*1000 {
			t.Fatalf("%s: %d records", when, len(got))
		}
		if got := allFlows(t, s, FlowFilter{Latest: true}, 10_000); len(got) != flows {
			t.Fatalf("%s: %d flows", when, len(got))
		}
		got := allFlows(t, s, FlowFilter{AliveAt: noon + 100_000, ID: end.ID}, 10)
		if len(got) != 1 || got[0].Decision.FromLabels["app"] != "web" {
			t.Fatalf("%s: %+v", when, got)
		}
		got = allFlows(t, s, FlowFilter{From: noon + 10_000, To: noon + 20_000, Src: end.Dst, Dst: end.Src}, 10)
		if len(got) != 10 {
			t.Fatalf("%s: %d in 10 s", when, len(got))
		}
		totals, err := s.FlowTotals("hq", noon, noon+hourMs)
		if err != nil || len(totals) != 12 {
			t.Fatalf("%s: %d minutes, %v", when, len(totals), err)
		}
		if first, last := totals[0], totals[11]; first.Flows != 60 || first.Bytes != 6000 || first.ByClass["voice"].Packets != 60 ||
			first.Talkers[0].Bytes != 6000 || last.Bytes != 40*100+1000 {
			t.Fatalf("%s: %+v ... %+v", when, first, last)
		}
	}
	if _, _, err := s.Flows(FlowFilter{}, Page{After: "nonsense"}); err == nil {
		t.Fatal("nonsense is a position")
	}
}

func TestEvents(t *testing.T) {
	dir := t.TempDir()
	c := &clock{noon}
	s := open(t, dir, Options{Now: c.now})
	for n := range int64(50) {
		kind := []string{"path_down", "policy_block"}[n%2]
		appendAll(t, s, Batch{Site: "hq", At: noon + n*1000, Events: []Event{{Type: kind, Severity: "warning", Source: fmt.Sprint(n)}}})
		if n == 20 {
			if err := s.flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	walk := func(f EventFilter) (out []Event) {
		p := Page{Limit: 7}
		for {
			part, next, err := s.Events(f, p)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, part...)
			if p.After = next; next == "" {
				return out
			}
		}
	}
	all := walk(EventFilter{})
	if len(all) != 50 || all[0].Source != "49" || all[49].Source != "0" {
		t.Fatalf("%d events", len(all))
	}
	if got := walk(EventFilter{Type: "path_down", From: noon + 10_000, To: noon + 30_000}); len(got) != 10 {
		t.Fatalf("%d path_down", len(got))
	}
	for _, e := range []Event{all[0], all[40]} {
		if err := s.Acknowledge(e.ID, "ann", noon); err != nil {
			t.Fatal(err)
		}
		if err := s.Acknowledge(e.ID, "bob", noon); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Acknowledge("nobody", "ann", noon); !errors.Is(err, ErrNotFound) {
		t.Fatalf("%v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{Now: c.now})
	if got := walk(EventFilter{Unacked: true}); len(got) != 48 {
		t.Fatalf("%d unacknowledged", len(got))
	}
	if got := walk(EventFilter{}); len(got) != 50 || got[0].Ack == nil || got[0].Ack.By != "ann" || got[1].Ack != nil {
		t.Fatalf("%+v", got[0])
	}
}

func TestStateAt(t *testing.T) {
	dir := t.TempDir()
	c := &clock{noon}
	s := open(t, dir, Options{Now: c.now})
	set := func(at int64, key, value string) {
		t.Helper()
		c.ms = at
		b := tick(1, at)
		b.Changes = []Change{{Key: key, Value: json.RawMessage(value)}}
		appendAll(t, s, b)
	}
	set(noon, "revision", `1`)
	set(noon+10*minuteMs, "path/a", `"up"`)
	set(noon+70*minuteMs, "path/a", `"down"`)
	if err := s.Seal(); err != nil {
		t.Fatal(err)
	}
	set(noon+80*minuteMs, "revision", `2`)
	// Hours without a change are known, too.
	c.ms = noon + 5*hourMs
	if err := s.Seal(); err != nil {
		t.Fatal(err)
	}
	set(noon+6*hourMs, "path/a", `null`)
	for range 2 {
		for _, w := range []struct {
			at             int64
			revision, path string
		}{
			{noon, "1", ""},
			{noon + 10*minuteMs, "1", `"up"`},
			{noon + 69*minuteMs, "1", `"up"`},
			{noon + 70*minuteMs, "1", `"down"`},
			{noon + 81*minuteMs, "2", `"down"`},
			{noon + 4*hourMs, "2", `"down"`},
			{noon + 6*hourMs, "2", ""},
		} {
			st, err := s.StateAt(w.at)
			if err != nil {
				t.Fatal(err)
			}
			if len(st.Sites) != 1 || string(st.Sites[0].Values["revision"]) != w.revision || string(st.Sites[0].Values["path/a"]) != w.path {
				t.Fatalf("after %d min: %+v", (w.at-noon)/minuteMs, st.Sites)
			}
			if w.at == noon+70*minuteMs && (len(st.Sites[0].Paths) != 1 || st.Sites[0].Paths[0].At != w.at) {
				t.Fatalf("paths: %+v", st.Sites[0].Paths)
			}
		}
		if st, err := s.StateAt(noon - 1); err != nil || len(st.Sites) != 0 {
			t.Fatalf("%+v, %v", st, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, Options{Now: c.now})
	}
}

func TestFederation(t *testing.T) {
	c := &clock{noon}
	site := open(t, t.TempDir(), Options{Now: c.now, Site: "hq"})
	board := open(t, t.TempDir(), Options{Now: c.now, Site: "board", Dashboard: true})
	const step = 10_000
	end := noon + 3*hourMs
	for at := noon; at < end; at += hourMs {
		b := hourOf(2, at, step)
		appendAll(t, site, b)
		// The dashboard hears the tail, but not all of it.
		b.Samples = b.Samples[:len(b.Samples)/2]
		appendAll(t, board, b)
	}
	appendAll(t, site, Batch{
		Site: "hq", At: end, Flows: []FlowRecord{flowAt(1, end)}, Events: []Event{{Type: "x"}},
		Changes: []Change{{Key: "revision", Value: json.RawMessage("3")}},
	})
	c.ms = end + hourMs
	for _, s := range []*Store{site, board} {
		if err := s.Seal(); err != nil {
			t.Fatal(err)
		}
	}
	if board.Head() != 0 {
		t.Fatalf("the dashboard feeds %d records of another site", board.Head())
	}
	// All, newest first, in small parts, twice.
	for range 2 {
		seen := map[Kind]int{}
		for to := site.Head(); to > 0; {
			recs, err := site.Records(1, to, true, 3)
			if err != nil {
				t.Fatal(err)
			}
			if len(recs) == 0 {
				break
			}
			for _, r := range recs {
				seen[r.Kind]++
			}
			to = recs[len(recs)-1].Seq - 1
			if err := board.Import("hq", recs, fmt.Append(nil, to)); err != nil {
				t.Fatal(err)
			}
			got, err := board.Cursor("hq")
			if err != nil || string(got) != fmt.Sprint(to) {
				t.Fatalf("cursor %q, %v", got, err)
			}
		}
		if seen[KindBlock] != 2*(3+3+1) || seen[KindFlows] != 1 || seen[KindEvent] != 1 || seen[KindState] == 0 || seen[KindTotals] != 1 {
			t.Fatalf("%v", seen)
		}
	}
	for n := range 2 {
		wantSamples(t, board, n, noon, end, step)
	}
	if got := allFlows(t, board, FlowFilter{Site: "hq"}, 10); len(got) != 1 {
		t.Fatalf("%d flows", len(got))
	}
	if st, err := board.StateAt(end + 1); err != nil || string(st.Sites[0].Values["revision"]) != "3" {
		t.Fatalf("%+v, %v", st, err)
	}
	recs, err := site.Records(1, site.Head(), false, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := board.Import("east", recs, nil); !errors.Is(err, ErrForeign) {
		t.Fatalf("%v", err)
	}
	recs[0].Value[5] ^= 1
	if err := board.Import("hq", recs, nil); !errors.Is(err, ErrDamaged) {
		t.Fatalf("%v", err)
	}
	// A block whose rows are of another hour than its key says, rightly sealed.
	whole, err := site.Records(1, site.Head(), false, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(whole, func(r Record) bool {
		id, err := parseBlockKey(r.Key)
		return err == nil && id.Tier == Raw
	})
	id, err := parseBlockKey(whole[i].Key)
	if err != nil {
		t.Fatal(err)
	}
	chunks, err := decodeBlock(nil, id, whole[i].Value)
	if err != nil {
		t.Fatal(err)
	}
	id.Start += hourMs
	moved := whole[i]
	moved.Key, moved.Value = id.key(), encodeBlock(id, chunks)
	if err := board.Import("hq", []Record{moved}, nil); !errors.Is(err, ErrDamaged) {
		t.Fatalf("%v", err)
	}
	// Each sample is counted once, wherever it came from first.
	q, err := board.FleetQuantile(Latency, noon, end, hourMs, 0.95)
	if err != nil || len(q) != 3 {
		t.Fatal(q, err)
	}
	exact, err := site.FleetQuantile(Latency, noon, end, hourMs, 0.95)
	if err != nil || len(exact) != 3 {
		t.Fatal(exact, err)
	}
	for i := range q {
		if q[i] != exact[i] || q[i].Count != 720 {
			t.Errorf("hour %d: %+v, counted one by one %+v", i, q[i], exact[i])
		}
	}
	all, err := board.FleetQuantile(Latency, noon+minuteMs, end, 3*hourMs, 0.95)
	if err != nil || len(all) != 1 || all[0].Count != 3*720-12 || all[0].At != noon+minuteMs {
		t.Fatal(all, err)
	}
	minutes, err := board.FleetQuantile(Latency, noon+minuteMs, end, minuteMs, 0.5)
	if err != nil || len(minutes) != 179 || minutes[0].Count != 12 {
		t.Fatalf("%d minutes, %+v, %v", len(minutes), minutes[0], err)
	}
	// A crash before the sketches were flushed loses nothing.
	if err := board.Seal(); err != nil {
		t.Fatal(err)
	}
	again, err := board.FleetQuantile(Latency, noon, end, hourMs, 0.95)
	if err != nil || len(again) != 3 || again[1] != q[1] {
		t.Fatal(again, err)
	}
}

func TestFleetAfterCrash(t *testing.T) {
	dir := t.TempDir()
	c := &clock{noon + 2*hourMs}
	s := open(t, dir, Options{Now: c.now, Dashboard: true})
	appendAll(t, s, hourOf(3, noon, 10_000))
	s.sealing.Lock()
	err := s.sealBlocks(c.ms) // but not flushFleet
	s.sealing.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	crashed := t.TempDir()
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	r := open(t, crashed, Options{Now: c.now, Dashboard: true})
	for range 2 {
		q, err := r.FleetQuantile(Latency, noon, noon+hourMs, hourMs, 0.95)
		if err != nil || len(q) != 1 {
			t.Fatal(q, err)
		}
		// The log still has the samples: until the next seal they count twice.
		if err := r.Seal(); err != nil {
			t.Fatal(err)
		}
		if q, err = r.FleetQuantile(Latency, noon, noon+hourMs, hourMs, 0.95); err != nil || q[0].Count != 3*360 {
			t.Fatalf("%+v, %v", q, err)
		}
	}
}

func TestTail(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	ctx, cancel := context.WithCancel(context.Background())
	got, done, ready := make(chan Batch), make(chan error), make(chan struct{})
	go func() {
		done <- s.Tail(ctx, "hq", func(b Batch) { got <- b })
	}()
	go func() {
		// Until the tail is there nothing is passed on.
		for {
			s.mu.Lock()
			n := len(s.tails)
			s.mu.Unlock()
			if n > 0 {
				close(ready)
				return
			}
		}
	}()
	<-ready
	const batches = tailBatches + 100
	for n := range int64(batches) {
		appendAll(t, s, tick(1, noon+n*1000))
	}
	n := 0
	for last := int64(0); last != noon+(batches-1)*1000; n++ {
		b := <-got
		if b.At <= last {
			t.Fatal("out of order")
		}
		last = b.At
	}
	if lost := s.Stats().TailDropped; uint64(n)+lost != batches || lost == 0 {
		t.Fatalf("%d read, %d lost", n, lost)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A clock that steps back in the middle of an hour, and one that jumps ahead
// and returns: no minute is lost, nothing is there twice.
func TestClockSteps(t *testing.T) {
	dir := t.TempDir()
	c := &clock{noon}
	s := open(t, dir, Options{Now: c.now})
	own := noon
	ticks := 0
	run := func(n int) {
		for range n {
			appendAll(t, s, tick(1, own))
			own += 1000
			ticks++
		}
	}
	run(600)
	own -= 120_000
	run(1200)
	own += 365 * dayMs
	run(60)
	own -= 365 * dayMs
	run(600)
	c.ms = own + hourMs
	if err := s.Seal(); err != nil {
		t.Fatal(err)
	}
	seen, minutes := 0, map[int64]bool{}
	last := int64(0)
	for sm, err := range s.Samples(series(0), noon, noon+dayMs) {
		if err != nil {
			t.Fatal(err)
		}
		if sm.At <= last {
			t.Fatal("out of order")
		}
		last = sm.At
		minutes[sm.At/minuteMs] = true
		seen++
	}
	if seen != ticks-60 {
		t.Errorf("%d of %d samples", seen, ticks-60)
	}
	for m := noon / minuteMs; m <= last/minuteMs; m++ {
		if !minutes[m] && !(m*minuteMs > noon+1500_000) {
			t.Errorf("minute %d is lost", m-noon/minuteMs)
		}
	}
	steps, _, err := s.Events(EventFilter{Type: "clock_step"}, Page{})
	if err != nil || len(steps) != 2 {
		t.Fatalf("%d steps, %v", len(steps), err)
	}
}
