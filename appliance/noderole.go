package appliance

import (
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"patronus/appliance/agent"
	"patronus/appliance/store"
	"patronus/configs"
	"patronus/dashboard/collect"
)

// Gossip about the dashboard role.
const (
	gossipParallel = 16
	gossipTimeout  = 8 * time.Second
	gossipRetry    = 2 * time.Second // doubling to gossipMost
	gossipMost     = 30 * time.Second
)

// everybody is the Site of a dashboard's store: no site has such a name, so
// nothing in it enters its change feed.
const everybody = "*"

// terms are what this node says about the dashboard role.
func (n *Node) terms() *agent.Terms {
	return &agent.Terms{SigningKey: n.fabric.Load().running.SigningKey, Signed: n.roles.Load().Statements()}
}

// heed takes what a site says about the role. Its signing key is pinned; its
// statements count by their own signatures, and those that do not are no
// reason to refuse the rest.
func (n *Node) heed(site string, t *agent.Terms) error {
	roles := n.roles.Load()
	if len(t.SigningKey) > 0 {
		if err := roles.Pin(site, t.SigningKey); err != nil {
			return err
		}
	}
	for _, signed := range t.Signed {
		changed, err := roles.Learn(signed)
		switch {
		case err != nil && !errors.Is(err, ErrStaleTerm):
			n.log.Debug("term not taken", "site", site, "err", err)
		case changed:
			holder, term, _ := roles.Holder()
			n.log.Info("the dashboard role has changed", "site", holder, "term", term)
		}
	}
	return nil
}

// exchange answers a site that says what it knows about the role.
func (n *Node) exchange(_ context.Context, site string, t *agent.Terms) (*agent.Terms, error) {
	if err := n.heed(site, t); err != nil {
		return nil, err
	}
	return n.terms(), nil
}

// greet says to a site what is known here about the role, before anything is
// asked of it.
func (n *Node) greet(ctx context.Context, site string, c *agent.Client) error {
	t, err := c.Exchange(ctx, n.terms())
	if err != nil {
		return err
	}
	return n.heed(site, t)
}

// Roles is what this node knows of the dashboard role; nil until the edge has
// told it which fabric this is.
func (n *Node) Roles() *Roles { return n.roles.Load() }

// Store is the history of this site, if it is open.
func (n *Node) Store() (*store.Store, bool) { return n.history.open() }

// Collected is the history of the fabric, if this node is a dashboard and its
// store is open.
func (n *Node) Collected() (*store.Store, bool) { return n.dashboard.open() }

// Declare takes a statement about the role that somebody with access to this
// appliance has signed, and tells it to the fabric.
func (n *Node) Declare(signed []byte) error {
	roles := n.roles.Load()
	if roles == nil {
		return errStarting
	}
	_, err := roles.Learn(signed)
	return err
}

// actOnRole collects while this node is a dashboard.
func (n *Node) actOnRole(ctx context.Context) error {
	v, err := n.await(ctx)
	if err != nil {
		return err
	}
	self, roles := v.running.Site, n.roles.Load()
	for {
		changed := roles.Changed()
		if !roles.Dashboard(self) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
				continue
			}
		}
		err := runTasks(ctx,
			task{"until demoted", func(ctx context.Context) error {
				for {
					changed := roles.Changed()
					if !roles.Dashboard(self) {
						return ErrNotDashboard
					}
					select {
					case <-ctx.Done():
						return ctx.Err()
					case <-changed:
					}
				}
			}},
			task{"dashboard", n.collect},
		)
		n.fleet.Store(nil)
		if !errors.Is(err, ErrNotDashboard) {
			return err
		}
		n.log.Info("demoted; what was collected stays", "site", self)
	}
}

// collect is the dashboard's work. A node without a directory has none.
func (n *Node) collect(ctx context.Context) error {
	if n.o.Dir == "" {
		<-ctx.Done()
		return ctx.Err()
	}
	self, roles := n.fabric.Load().running.Site, n.roles.Load()
	// A standby collects, too; of two that export everything would come twice.
	out := n.newOutlet(configs.FromDashboard, self, n.dashboard.open, func() bool {
		holder, _, ok := roles.Holder()
		return ok && holder == self
	})
	n.outlets.add(out)
	defer n.outlets.remove(out)
	o := store.Options{Site: everybody, Dashboard: true, Forward: out}
	return out.keepOpen(ctx, func(ctx context.Context) error { return n.keepCollected(ctx, o) })
}

// keepCollected opens the dashboard's store and fills it.
func (n *Node) keepCollected(ctx context.Context, o store.Options) error {
	return n.dashboard.keep(ctx, n.log, filepath.Join(n.o.Dir, "dashboard"), o, func(ctx context.Context, s *store.Store) error {
		f := collect.NewFleet(collect.Options{Sink: s, Dial: n.Dial, Greet: n.greet, Logger: n.log})
		f.SetSites(n.fabric.Load().names())
		n.fleet.Store(f)
		defer n.fleet.Store(nil)
		tasks := []Task{f}
		if n.o.Dashboard != nil {
			role := &DashboardRole{Store: s, Roles: n.roles.Load(), Fleet: f, Edge: n.edge, Node: n}
			tasks = append(tasks, task{"pages", func(ctx context.Context) error { return n.o.Dashboard(ctx, role) }})
		}
		return runTasks(ctx, tasks...)
	})
}

// gossip tells every site what this node has said about itself, until each has
// heard it. Who was never promoted has nothing to tell.
func (n *Node) gossip(ctx context.Context) error {
	v, err := n.await(ctx)
	if err != nil {
		return err
	}
	self, roles := v.running.Site, n.roles.Load()
	told := make(map[string][sha256.Size]byte)
	retry := gossipRetry
	for {
		changed := roles.Changed()
		left := 0
		if slices.ContainsFunc(roles.Terms(), func(t configs.Term) bool { return t.Site == self }) {
			left = n.tell(ctx, self, told)
		}
		again := time.NewTimer(retry)
		if left == 0 {
			again.Stop()
		}
		select {
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		case <-changed:
			retry = gossipRetry
		case <-again.C:
			retry = min(2*retry, gossipMost)
		}
		again.Stop()
	}
}

// tell tells all sites that have not heard it yet, and returns how many still
// have not.
func (n *Node) tell(ctx context.Context, self string, told map[string][sha256.Size]byte) (left int) {
	what := digest(n.terms())
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(gossipParallel)
	for _, site := range n.fabric.Load().names() {
		mu.Lock()
		heard := told[site] == what
		mu.Unlock()
		if site == self || heard {
			continue
		}
		group.Go(func() error {
			err := n.withAgent(ctx, site, func(ctx context.Context, c *agent.Client) error { return n.greet(ctx, site, c) })
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				left++
				n.log.Debug("role not told yet", "site", site, "err", err)
				return nil
			}
			told[site] = what
			return nil
		})
	}
	_ = group.Wait() // counted in left
	return left
}

func digest(t *agent.Terms) [sha256.Size]byte {
	h := sha256.New()
	for _, s := range t.Signed {
		h.Write(s)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// withAgent asks the agent of a site something short.
func (n *Node) withAgent(ctx context.Context, site string, ask func(context.Context, *agent.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, gossipTimeout)
	defer cancel()
	c := agent.NewClient(func(ctx context.Context) (net.Conn, error) { return n.Dial(ctx, site) })
	defer c.Close()
	return ask(ctx, c)
}

// Reach is what a site answers when it is asked before a promotion.
type Reach struct {
	Site    string `json:"site"`
	Err     string `json:"error,omitempty"` // why it could not be asked
	Version string `json:"version,omitempty"`
	Records uint64 `json:"records"` // in its history, at most
	SkewMS  int64  `json:"clock_skew_ms"`
}

// Survey asks all sites what history they have, and changes nothing.
func (n *Node) Survey(ctx context.Context) ([]Reach, error) {
	v := n.fabric.Load()
	if v == nil {
		return nil, errStarting
	}
	out := make([]Reach, len(v.config.Sites))
	var group errgroup.Group
	group.SetLimit(gossipParallel)
	for i, site := range v.names() {
		out[i].Site = site
		group.Go(func() error {
			err := n.withAgent(ctx, site, func(ctx context.Context, c *agent.Client) error {
				id, err := c.Identify(ctx)
				if err == nil {
					out[i].Version, out[i].Records = id.Version, id.Head
					out[i].SkewMS = id.ClockMS - time.Now().UnixMilli()
				}
				return err
			})
			if err != nil {
				out[i].Err = err.Error()
			}
			return nil
		})
	}
	return out, group.Wait()
}
