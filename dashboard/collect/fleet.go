package collect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"patronus/appliance/agent"
	"patronus/appliance/store"
)

// The defaults of Options.
const (
	Backfills   = 16
	Connects    = 128
	ticksQueued = 1024
)

// Waits: the first connection is spread over startEach for each site, at most
// startMost; one that fails is tried again after backoffFirst, doubling to
// backoffMost, each plus or minus a half.
const (
	startEach      = 5 * time.Millisecond
	startMost      = 5 * time.Second
	backoffFirst   = time.Second
	backoffMost    = 30 * time.Second
	connectTimeout = 8 * time.Second
)

// Sink is the store that history is collected into.
type Sink interface {
	Append(ctx context.Context, b store.Batch) error
	Import(site string, recs []store.Record, cursor []byte) error
	Cursor(site string) ([]byte, error)
}

// Options are what a Fleet is made of.
type Options struct {
	Sink Sink
	// Dial connects to the agent of a site over the overlay.
	Dial func(ctx context.Context, site string) (net.Conn, error)
	// Greet is called on each new connection before anything is asked: it
	// exchanges terms. It may be nil.
	Greet  func(ctx context.Context, site string, c *agent.Client) error
	Logger *slog.Logger
	// Backfills and Connects bound how many sites may backfill, or connect, at
	// the same time; 0 is the default.
	Backfills, Connects int
}

// Fleet collects the history of all sites. It is safe for concurrent use.
type Fleet struct {
	o                   Options
	log                 *slog.Logger
	backfills, connects chan struct{}
	ticks               chan store.Batch
	lost                atomic.Uint64 // ticks that did not fit

	mu      sync.Mutex
	sites   map[string]*collector
	changed chan struct{} // has room for one: SetSites was called
}

// NewFleet builds a fleet without sites.
func NewFleet(o Options) *Fleet {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Fleet{
		o: o, log: o.Logger, sites: make(map[string]*collector), changed: make(chan struct{}, 1),
		backfills: make(chan struct{}, cmp.Or(o.Backfills, Backfills)),
		connects:  make(chan struct{}, cmp.Or(o.Connects, Connects)),
		ticks:     make(chan store.Batch, ticksQueued),
	}
}

// SetSites says which sites to collect from. What is here of others stays.
func (f *Fleet) SetSites(names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range names {
		if f.sites[n] == nil {
			f.sites[n] = newCollector(f, n)
		}
	}
	for n := range f.sites {
		if !slices.Contains(names, n) {
			delete(f.sites, n)
		}
	}
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// String names the task.
func (f *Fleet) String() string { return "collect" }

// Run collects until ctx ends.
func (f *Fleet) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all.Go(func() { f.append(ctx) })
	type running struct {
		c    *collector
		stop context.CancelFunc
	}
	now := make(map[string]running)
	for {
		f.mu.Lock()
		for n, r := range now {
			if f.sites[n] != r.c {
				r.stop()
				delete(now, n)
			}
		}
		spread := min(time.Duration(len(f.sites))*startEach, startMost)
		for n, c := range f.sites {
			if _, ok := now[n]; ok {
				continue
			}
			ctx, stop := context.WithCancel(ctx)
			now[n] = running{c, stop}
			all.Go(func() {
				defer stop()
				c.run(ctx, rand.N(spread+1))
			})
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.changed:
		}
	}
}

// tick takes an unsealed tick. A live one does not wait for the disk: if it does
// not fit it is counted, and comes later in a sealed record. One of a catch-up
// waits, and so does the site that sends it.
func (f *Fleet) tick(ctx context.Context, b store.Batch, waits bool) (kept bool) {
	select {
	case f.ticks <- b:
		return true
	default:
	}
	if !waits {
		f.lost.Add(1)
		return false
	}
	select {
	case f.ticks <- b:
		return true
	case <-ctx.Done():
		return false
	}
}

// appenders is how many goroutines append ticks, so that the store may sync
// several at once.
const appenders = 8

func (f *Fleet) append(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for range appenders {
		all.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case b := <-f.ticks:
					if err := f.o.Sink.Append(ctx, b); err != nil && ctx.Err() == nil {
						f.lost.Add(1)
						f.log.Debug("tick not kept; it comes again sealed", "site", b.Site, "err", err)
					}
				}
			}
		})
	}
}

// wait sleeps, and reports false if ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// run connects again and again until ctx ends.
func (c *collector) run(ctx context.Context, first time.Duration) {
	if !wait(ctx, first) {
		return
	}
	backoff := backoffFirst
	for {
		connected, err := c.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if connected {
			backoff = backoffFirst
		}
		c.away(err)
		c.fleet.log.Debug("collecting interrupted", "site", c.site, "err", err, "dur", backoff)
		if !wait(ctx, backoff/2+rand.N(backoff)) {
			return
		}
		backoff = min(2*backoff, backoffMost)
	}
}

// acquire takes a slot; release with <-slots.
func acquire(ctx context.Context, slots chan struct{}) error {
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var (
	// errOther is for a connection that ends at another site than was meant.
	errOther = errors.New("another site answered")
	// errNoCursor is for a sink whose cursor cannot be read.
	errNoCursor = errors.New("cursor cannot be read")
)

// connect greets a site and learns whose store it is.
func (c *collector) connect(ctx context.Context, client *agent.Client) (*agent.Identity, error) {
	c.set(func(s *Site) { s.State = Connecting })
	if err := acquire(ctx, c.fleet.connects); err != nil {
		return nil, err
	}
	defer func() { <-c.fleet.connects }()
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if c.fleet.o.Greet != nil {
		if err := c.fleet.o.Greet(ctx, c.site, client); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	id, err := client.Identify(ctx)
	if err != nil {
		return nil, err
	}
	if id.Site != c.site {
		return nil, fmt.Errorf("%w: %s instead of %s", errOther, id.Site, c.site)
	}
	// The site read its clock about half a round trip ago (RFC 5905, 8).
	took := time.Since(began)
	skew := time.UnixMilli(id.ClockMS).Sub(began.Add(took / 2))
	c.set(func(s *Site) {
		s.Node, s.Epoch, s.Version, s.Head = id.Node, id.Epoch, id.Version, id.Head
		s.SkewMS, s.SkewErrorMS = skew.Milliseconds(), (took/2).Milliseconds()+1
		s.SeenAt = time.Now()
	})
	return id, nil
}
