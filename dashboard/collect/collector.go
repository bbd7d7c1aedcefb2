package collect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"patronus/appliance/agent"
	"patronus/appliance/store"
)

// collector keeps the history of one site.
type collector struct {
	fleet *Fleet
	site  string

	// importing is held from reading the cursor to believing the next one, so
	// that tail and backfill do not overwrite each other's.
	importing sync.Mutex
	loaded    bool
	cursor    cursor

	// Of the session's tail. since is the time of the newest unsealed tick up to
	// which all are here, Unix ms; 0 is none.
	caughtUp, gap bool
	since         int64

	mu     sync.Mutex
	status Site
}

func newCollector(f *Fleet, site string) *collector {
	return &collector{fleet: f, site: site, status: Site{Site: site, State: Waiting}}
}

// set changes the status.
func (c *collector) set(change func(*Site)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.status)
}

func (c *collector) away(err error) {
	c.set(func(s *Site) {
		s.State = Away
		if err != nil {
			s.Err = err.Error()
		}
	})
}

// session is one connection, from greeting to its end. connected reports that
// the site answered.
func (c *collector) session(ctx context.Context) (connected bool, err error) {
	client := agent.NewClient(func(ctx context.Context) (net.Conn, error) { return c.fleet.o.Dial(ctx, c.site) })
	defer client.Close()
	id, err := c.connect(ctx, client)
	if err != nil {
		return false, err
	}
	if err := c.meet(id); err != nil {
		return true, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		c.caughtUp, c.gap = false, false
		request := &agent.TailRequest{Node: id.Node, Epoch: id.Epoch, After: id.Head, SinceMS: c.since}
		if err := client.Tail(ctx, request, func(ev *agent.TailEvent) error { return c.follow(ctx, ev) }); err != nil {
			return err
		}
		return fmt.Errorf("tail ended: %w", agent.ErrUnavailable)
	})
	group.Go(func() error { return c.backfill(ctx, client, id) })
	return true, group.Wait()
}

// meet finds out what of the site's store is here already.
func (c *collector) meet(id *agent.Identity) error {
	c.importing.Lock()
	defer c.importing.Unlock()
	if !c.loaded {
		text, err := c.fleet.o.Sink.Cursor(c.site)
		if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrDamaged) {
			return fmt.Errorf("%w: %w", errNoCursor, err)
		}
		if c.cursor, err = readCursor(text); err != nil {
			c.fleet.log.Warn("history is pulled again from the beginning", "site", c.site, "err", err)
		}
		c.loaded = true
	}
	c.mu.Lock()
	seen := c.status.seenHead
	c.mu.Unlock()
	next, rebuilt := c.cursor.meet(id.Node, id.Epoch, seen, id.Head)
	if rebuilt {
		c.fleet.log.Warn("site has begun its history anew; what is here of the old one stays", "site", c.site)
	}
	if rebuilt {
		c.since = 0
	}
	c.cursor = next
	c.set(func(s *Site) { s.seenHead = id.Head })
	c.show()
	return nil
}

// backfill asks for what is missing below the head, newest first. Records that
// come by the tail meanwhile are above it.
func (c *collector) backfill(ctx context.Context, client *agent.Client, id *agent.Identity) error {
	if id.Head == 0 || c.have().Covers(Range{1, id.Head}) {
		c.set(func(s *Site) { s.State, s.Err = Live, "" })
		return nil
	}
	c.set(func(s *Site) { s.State = Queued })
	if err := acquire(ctx, c.fleet.backfills); err != nil {
		return err
	}
	defer func() { <-c.fleet.backfills }()
	c.set(func(s *Site) { s.State = Backfilling })
	for _, r := range c.have().Missing(Range{1, id.Head}) {
		request := &agent.RecordsRequest{Node: id.Node, Epoch: id.Epoch, First: r.First, Last: r.Last}
		if err := client.Records(ctx, request, c.take); err != nil {
			return err
		}
	}
	if left := c.have().Missing(Range{1, id.Head}); len(left) > 0 {
		return fmt.Errorf("site left out records %d to %d: %w", left[0].First, left[0].Last, agent.ErrUnavailable)
	}
	c.set(func(s *Site) { s.State, s.Err = Live, "" })
	return nil
}

func (c *collector) have() Ranges {
	c.importing.Lock()
	defer c.importing.Unlock()
	return c.cursor.Have
}

// follow takes one event of the tail.
func (c *collector) follow(ctx context.Context, ev *agent.TailEvent) error {
	c.set(func(s *Site) { s.SeenAt = time.Now() })
	if ev.Records != nil {
		if err := c.take(ev.Records); err != nil {
			return err
		}
		c.set(func(s *Site) { s.Head = max(s.Head, ev.Records.Last) })
	}
	if ev.CaughtUp {
		c.caughtUp = true
	}
	if ev.Tick == nil {
		return nil
	}
	// A site speaks of itself only.
	if ev.Tick.Site != c.site {
		return fmt.Errorf("tick of %q from %q: %w", ev.Tick.Site, c.site, store.ErrForeign)
	}
	switch kept := c.fleet.tick(ctx, ev.Tick.Batch(), !c.caughtUp); {
	case !kept:
		c.gap = true
	case c.caughtUp && !c.gap:
		c.since = max(c.since, ev.Tick.At)
	}
	c.set(func(s *Site) { s.Ticks++ })
	return nil
}

// take imports a message's records, and with them the cursor that tells of
// them. Ranges may come twice and in any order.
func (c *collector) take(m *agent.Records) error {
	if m.First == 0 || m.First > m.Last {
		return fmt.Errorf("records %d to %d: no range: %w", m.First, m.Last, agent.ErrUnavailable)
	}
	c.importing.Lock()
	defer c.importing.Unlock()
	r := Range{m.First, m.Last}
	if c.cursor.Have.Covers(r) {
		return nil
	}
	recs := make([]store.Record, 0, len(m.Records))
	bytes := 0
	for i := range m.Records {
		rec := &m.Records[i]
		if rec.Seq < m.First || rec.Seq > m.Last {
			return fmt.Errorf("record %d in %d to %d: %w", rec.Seq, m.First, m.Last, agent.ErrUnavailable)
		}
		if !c.cursor.Have.Has(rec.Seq) {
			recs = append(recs, *rec)
			bytes += len(rec.Key) + len(rec.Value)
		}
	}
	next := c.cursor
	next.Have = next.Have.Add(r)
	for _, seq := range m.Damaged {
		if seq >= m.First && seq <= m.Last && !c.cursor.Have.Has(seq) {
			next.Damaged = next.Damaged.Add(Range{seq, seq})
		}
	}
	kept, err := c.store(recs, next)
	if err != nil {
		return err
	}
	c.cursor = kept
	c.set(func(s *Site) { s.Records += uint64(len(recs)); s.Bytes += uint64(bytes) })
	c.show()
	return nil
}

// store imports records with a cursor. One that the sink refuses for what it is
// is left out and told, so that it is neither asked for for ever nor holds up
// the others.
func (c *collector) store(recs []store.Record, next cursor) (cursor, error) {
	text, err := next.encode()
	if err != nil {
		return next, err
	}
	err = c.fleet.o.Sink.Import(c.site, recs, text)
	if err == nil || !unfit(err) {
		return next, err
	}
	old, err := c.cursor.encode()
	if err != nil {
		return next, err
	}
	for i := range recs {
		switch err := c.fleet.o.Sink.Import(c.site, recs[i:i+1], old); {
		case err == nil:
		case unfit(err):
			c.fleet.log.Warn("record refused", "site", c.site, "err", err)
			next.Damaged = next.Damaged.Add(Range{recs[i].Seq, recs[i].Seq})
		default:
			return next, err
		}
	}
	if text, err = next.encode(); err != nil {
		return next, err
	}
	return next, c.fleet.o.Sink.Import(c.site, nil, text)
}

// unfit reports whether a record was refused for what it is.
func unfit(err error) bool {
	return errors.Is(err, store.ErrDamaged) || errors.Is(err, store.ErrForeign)
}

// show copies what the cursor says into the status. The caller holds importing.
func (c *collector) show() {
	have, damaged, before := c.cursor.Have, c.cursor.Damaged, c.cursor.Before
	c.set(func(s *Site) { s.have, s.Damaged, s.Before = have, damaged, before })
}
