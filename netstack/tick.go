package netstack

import (
	"context"
	"slices"
	"time"

	"patronus/netstack/path"
)

// expireBudget is how many buckets of the flow table one tick looks at; at ten
// ticks a second a table of 100,000 flows is seen through in about 4 s.
const expireBudget = 1024

// tick does once a second what is nobody's packet: samples, ageing, and
// steering by what the samples say.
func (e *Engine) tick(ctx context.Context) error {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	age := time.NewTicker(100 * time.Millisecond)
	defer age.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-age.C:
			e.flows.Expire(e.now(), expireBudget)
		case <-second.C:
			e.sample()
		}
	}
}

// sample takes a Sample of every path and steers anew if one of them changed.
func (e *Engine) sample() {
	now := e.wall(e.now())
	resteer := false
	var all []change
	for _, ps := range *e.pathList.Load() {
		if ps == nil {
			continue
		}
		counters := ps.peer.Counters()
		ps.mu.Lock()
		duplicates, keepalives := ps.tally.add(counters.Tally)
		ps.inband.Duplicate(duplicates)
		ps.inband.Keepalive(keepalives)
		in := ps.inband.Snapshot()
		ps.tracker.ObserveBytes(counters.TxBytes, ps.rxBytes.Load())
		ps.tracker.ObserveReceived(in.Reordered, in.Duplicates)
		sample, t := ps.tracker.Tick(now)
		ps.sample = sample
		if t != nil {
			ps.note(t)
			all = append(all, change{t, ps})
		}
		resteer = resteer || ps.tracker.Generation() != ps.published
		ps.mu.Unlock()
		metrics := sample.Metrics()
		e.sink(Event{Kind: PathMetric, At: now, Path: ps.id, New: sample.State.String(), Metrics: &metrics})
	}
	if len(all) > 0 {
		e.prober.changed(all...)
	} else if resteer {
		e.resteer()
	}
}

// PathTest is what a test of one path on demand found.
type PathTest struct {
	Path     path.ID       `json:"path_id"`
	Sent     int           `json:"sent"`
	Received int           `json:"received"`
	Min      time.Duration `json:"min_ns"`
	Median   time.Duration `json:"median_ns"`
	Max      time.Duration `json:"max_ns"`
}

// pathTests is how many probes a test on demand sends, testGap how far apart.
const (
	pathTests = 10
	testGap   = 50 * time.Millisecond
)

// TestPath probes a path at the active rate for half a second and reports the
// round trips.
func (e *Engine) TestPath(ctx context.Context, id path.ID) (*PathTest, error) {
	var ps *pathState
	for _, p := range *e.pathList.Load() {
		if p != nil && p.id == id {
			ps = p
		}
	}
	if ps == nil {
		return nil, ErrUnknownPath
	}
	delays := make(chan time.Duration, 4*pathTests)
	ps.mu.Lock()
	ps.watch = func(d time.Duration) {
		select {
		case delays <- d:
		default: // more than were asked for
		}
	}
	ps.mu.Unlock()
	defer func() {
		ps.mu.Lock()
		ps.watch = nil
		ps.mu.Unlock()
	}()
	result := &PathTest{Path: id, Sent: pathTests}
	pace := time.NewTicker(testGap)
	defer pace.Stop()
	var got []time.Duration
	for tick := 0; tick < 2*pathTests && len(got) < pathTests; {
		// Traffic is what makes a path active.
		ps.lastTraffic.Store(e.now())
		e.prober.kick()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case d := <-delays:
			got = append(got, d)
		case <-pace.C:
			tick++
		}
	}
	slices.Sort(got)
	if n := len(got); n > 0 {
		result.Received, result.Min, result.Median, result.Max = n, got[0], got[n/2], got[n-1]
	}
	return result, nil
}
