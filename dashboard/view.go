package dashboard

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"patronus/configs"
	"patronus/dashboard/auth"
	"patronus/dashboard/control"
	"patronus/netstack/policy"
)

const (
	// viewEvery bounds how often what sites say makes a new view, viewFor how
	// long one is shown when they say nothing: being silent is news too. While
	// one request makes a new view the others get the old one, up to viewMost.
	viewEvery = 500 * time.Millisecond
	viewFor   = 2 * time.Second
	viewMost  = 10 * time.Second
	// blockedFor is how long the counts of the last hour's blocks are shown.
	blockedFor = 10 * time.Second
)

// view is the fabric at one moment, encoded once for everybody.
type view struct {
	config   *configs.Config
	revision control.Revision
	states   map[string]*SiteState
	labels   map[string]map[string]string // of each site
	at       time.Time

	sites    *collection[Site]
	paths    *collection[Path]
	policies *collection[Policy]
	bySource func() map[string][]int // places in paths of each source's
}

// pathsOf are the places in paths of those that begin at a site.
func (v *view) pathsOf(site string) []int { return v.bySource()[site] }

// ruled is what only a new revision changes.
type ruled struct {
	revision uint64
	input    policy.Input
	shapes   []Policy // in the order of the configuration, without counts
}

// views makes views and keeps the newest.
type views struct {
	making sync.Mutex // held while a view is made; taken before mu

	mu       sync.Mutex
	newest   *view
	seen     [2]uint64 // revision and states of newest
	ruled    *ruled    // guarded by making
	blocked  map[string]uint64
	blockedT time.Time
}

// view is the fabric now: what was committed is in it at once, what sites say
// within half a second.
func (s *Server) view(ctx context.Context) (*view, error) {
	v := &s.views
	committed := s.o.Plane.Current()
	states, version := s.o.States.States()
	now := s.now()
	blocked := s.blockedFlows(ctx, now)
	want := [2]uint64{committed.Revision.Number, version}
	if n := v.current(want, now, false); n != nil {
		return n, nil
	}
	if !v.making.TryLock() {
		if n := v.current(want, now, true); n != nil {
			return n, nil
		}
		v.making.Lock()
	}
	defer v.making.Unlock()
	if n := v.current(want, now, false); n != nil {
		return n, nil // made while this one waited
	}
	if v.ruled == nil || v.ruled.revision != committed.Revision.Number {
		r, err := ruledOf(committed.Config, committed.Revision.Number)
		if err != nil {
			return nil, err
		}
		v.ruled = r
	}
	next := newView(committed, states, v.ruled, blocked, now)
	v.mu.Lock()
	old := v.newest
	v.mu.Unlock()
	if old != nil && old.revision.Number == next.revision.Number {
		// Others have the old one meanwhile: what this one is likely to be asked
		// for is ready when they get it.
		next.sites.whole()
		next.paths.texts()
	}
	v.mu.Lock()
	v.newest, v.seen = next, want
	v.mu.Unlock()
	return next, nil
}

// current is the newest view if it may be shown: what was committed is always
// in it. busy says that a newer one is being made.
func (v *views) current(want [2]uint64, now time.Time, busy bool) *view {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.newest
	if n == nil || want[0] != v.seen[0] {
		return nil
	}
	age := now.Sub(n.at)
	if age >= 0 && (age < viewEvery || want == v.seen && age < viewFor || busy && age < viewMost) {
		return n
	}
	return nil
}

// past is the fabric as it was.
func (s *Server) past(ctx context.Context, at time.Time) (*view, error) {
	committed, err := s.o.Plane.At(at)
	if err != nil {
		return nil, err
	}
	if s.o.History == nil {
		return nil, fmt.Errorf("nothing is recorded: %w", ErrUnavailable)
	}
	defer s.meter.query("states_at")()
	states, err := s.o.History.StatesAt(ctx, at)
	if err != nil {
		return nil, err
	}
	r, err := ruledOf(committed.Config, committed.Revision.Number)
	if err != nil {
		return nil, err
	}
	return newView(committed, states, r, nil, at), nil
}

// seen is the view that a request asks about.
func (s *Server) seen(r *request) (*view, error) {
	if r.at.IsZero() {
		return s.view(r.UserContext())
	}
	return s.past(r.UserContext(), r.at)
}

// blockedFlows are the last hour's blocks by policy, nil if nobody counts them.
func (s *Server) blockedFlows(ctx context.Context, now time.Time) map[string]uint64 {
	if s.o.History == nil {
		return nil
	}
	v := &s.views
	v.mu.Lock()
	before := v.blocked
	fresh := now.Sub(v.blockedT) < blockedFor && !now.Before(v.blockedT)
	if !fresh {
		v.blockedT = now // nobody else asks meanwhile
	}
	v.mu.Unlock()
	if fresh {
		return before
	}
	defer s.meter.query("blocked_flows")()
	counts, err := s.o.History.Blocked(ctx, now.Add(-time.Hour))
	if err != nil {
		s.log.Warn("blocked flows cannot be counted", "err", err)
		return before
	}
	if counts == nil {
		counts = map[string]uint64{}
	}
	v.mu.Lock()
	v.blocked = counts
	v.mu.Unlock()
	return counts
}

func ruledOf(c *configs.Config, revision uint64) (*ruled, error) {
	in, err := control.Input(c)
	if err != nil {
		return nil, fmt.Errorf("policies of revision %d: %w", revision, err)
	}
	rules, err := policy.Compile(in)
	if err != nil {
		return nil, fmt.Errorf("policies of revision %d: %w", revision, err)
	}
	r := &ruled{revision: revision, input: in, shapes: make([]Policy, 0, len(c.Policies))}
	selected := endpointsOf(rules)
	for i := range c.Policies {
		p, err := policyShape(c.Policies[i])
		if err != nil {
			return nil, fmt.Errorf("policies of revision %d: %w", revision, err)
		}
		p.AppliesTo = selected[longPolicyID(p.ID)]
		r.shapes = append(r.shapes, p)
	}
	return r, nil
}

// endpointsOf counts the endpoints that each policy selects.
func endpointsOf(rules *policy.Ruleset) map[string]int {
	bySubject := map[policy.Subject]int{}
	rules.Subjects(func(s policy.Subject, _ configs.HostEndpoint) bool {
		bySubject[s]++
		return true
	})
	counts := map[string]int{}
	for ref := range policy.PolicyRef(rules.Policies()) {
		id := rules.PolicyID(ref)
		if id == "" {
			continue
		}
		for s, n := range bySubject {
			if rules.Selects(ref, s) {
				counts[id] += n
			}
		}
	}
	return counts
}

func newView(committed *control.State, states map[string]*SiteState, r *ruled, blocked map[string]uint64, now time.Time) *view {
	n, c, rev := committed.Network, committed.Config, committed.Revision
	v := &view{config: c, revision: rev, states: states, labels: make(map[string]map[string]string, len(n.Sites)), at: now}
	for i := range n.Sites {
		v.labels[n.Sites[i].Name] = n.Sites[i].Labels
	}
	v.sites = newCollection(func() []Site {
		list := make([]Site, 0, len(n.Sites))
		for i := range n.Sites {
			site := &n.Sites[i]
			list = append(list, siteShape(c, site, states[site.Name], rev.Number, now))
		}
		return list
	}, func(x *Site) string { return x.ID })
	v.paths = newCollection(func() []Path {
		var list []Path
		for i := range c.Sites {
			list = append(list, pathShapes(c.Sites[i].Name, states[c.Sites[i].Name], now)...)
		}
		return list
	}, func(x *Path) string { return string(x.ID) })
	v.policies = newCollection(func() []Policy {
		list := slices.Clone(r.shapes)
		at := make(map[string]*Policy, len(list))
		for i := range list {
			p := &list[i]
			long := longPolicyID(p.ID)
			at[long] = p
			if n, ok := blocked[long]; ok || blocked != nil {
				p.BlocksLastHour = &n
			}
		}
		for _, st := range states {
			for _, n := range st.Policies {
				if p := at[n.Policy]; p != nil {
					p.AllowedFlows += n.Allowed
					p.DeniedFlows += n.Denied
					p.StagedFlows += n.Staged
				}
			}
		}
		return list
	}, func(x *Policy) string { return x.ID })
	v.bySource = sync.OnceValue(func() map[string][]int {
		m := map[string][]int{}
		for i := range v.paths.list() {
			from := v.paths.list()[i].Source.ID
			m[from] = append(m[from], i)
		}
		return m
	})
	return v
}

// sees reports whether a site is in an actor's scope.
func (v *view) sees(a *auth.Actor, site string) bool {
	return a.Everywhere() || site != "" && a.Scope.Sees(v.labels[site])
}

// scope is what interfaces ask about sites, nil if the actor sees all.
func (v *view) scope(a *auth.Actor) func(string) bool {
	if a.Everywhere() {
		return nil
	}
	actor := *a
	return func(site string) bool { return v.sees(&actor, site) }
}
