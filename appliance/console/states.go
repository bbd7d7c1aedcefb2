package console

import (
	"context"
	"maps"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"patronus/dashboard"
	"patronus/netstack"
)

const (
	// pollEvery is how often a site is asked, while there are few; of many, a
	// hundred are asked each second.
	pollEvery  = 2 * time.Second
	pollRate   = 100 // a second
	pollAtOnce = 32
	// pollFor is how long an answer is waited for.
	pollFor = 3 * time.Second
)

// States implements dashboard.States.
func (c *Console) States() (map[string]*dashboard.SiteState, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.states, c.version
}

// poll asks all sites, round after round.
func (c *Console) poll(ctx context.Context) error {
	for {
		began := time.Now()
		sites := c.sites()
		c.round(ctx, sites)
		every := max(pollEvery, time.Duration(len(sites))*time.Second/pollRate)
		// Two dashboards shall not ask in step.
		wait := every - time.Since(began) + rand.N(every/8)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(max(wait, every/4)):
		}
	}
}

func (c *Console) sites() []string {
	network := c.o.Plane.Current().Network
	names := make([]string, len(network.Sites))
	for i := range network.Sites {
		names[i] = network.Sites[i].Name
	}
	return names
}

// round asks each site once, and forgets those that are gone.
func (c *Console) round(ctx context.Context, sites []string) {
	var group errgroup.Group
	group.SetLimit(pollAtOnce)
	for _, site := range sites {
		group.Go(func() error {
			c.ask(ctx, site)
			return nil
		})
	}
	_ = group.Wait() // asking does not fail
	known := make(map[string]bool, len(sites))
	for _, site := range sites {
		known[site] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for site := range c.states {
		if !known[site] {
			next := maps.Clone(c.states)
			maps.DeleteFunc(next, func(name string, _ *dashboard.SiteState) bool { return !known[name] })
			c.states = next
			c.version++
			return
		}
	}
}

// ask notes what one site says of itself. One that does not answer keeps what
// it said last, and its age shows.
func (c *Console) ask(ctx context.Context, site string) {
	ctx, cancel := context.WithTimeout(ctx, pollFor)
	defer cancel()
	status, err := c.o.Edge(site).Status(ctx)
	if err != nil {
		c.log.Debug("site does not answer", "site", site, "err", err)
		return
	}
	c.set(site, c.stateOf(site, status))
}

func (c *Console) set(site string, st *dashboard.SiteState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := maps.Clone(c.states)
	next[site] = st
	c.states = next
	c.version++
}

func (c *Console) stateOf(site string, s *netstack.Status) *dashboard.SiteState {
	now := c.now()
	st := &dashboard.SiteState{
		SeenAt: now, Overlay: s.Overlay, Flows: s.Flows.Live,
		Started: now.Add(-time.Duration(s.Uptime * float64(time.Second))).Truncate(time.Second),
	}
	st.Revision, st.Failed = c.o.Applied(site)
	if c.o.Version != nil {
		st.Version = c.o.Version(site)
	}
	for i := range s.Uplinks {
		st.Uplinks = append(st.Uplinks, dashboard.UplinkState{Name: s.Uplinks[i].Name, Carrier: s.Uplinks[i].Carrier})
	}
	for i := range s.Paths {
		p := &s.Paths[i]
		st.Paths = append(st.Paths, dashboard.PathState{
			ID: p.ID, State: p.State, Why: p.Why, Since: p.Since, Endpoint: p.Endpoint, MTU: p.MTU, HandshakeAt: p.Handshake,
			Metrics: p.Metrics, Scores: p.Scores, TxBytes: p.TxBytes, RxBytes: p.RxBytes,
		})
	}
	for i := range s.Policies {
		p := &s.Policies[i]
		st.Policies = append(st.Policies, dashboard.PolicyCount{Policy: p.Policy, Allowed: p.Allowed, Denied: p.Denied, Staged: p.Staged})
	}
	return st
}
