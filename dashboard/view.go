package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"patronus/appliance/ledger"
	"patronus/configs"
	"patronus/dashboard/auth"
	"patronus/dashboard/control"
	"patronus/netstack/policy"
)

const (
	// viewEvery bounds how often what sites say makes a new view, viewFor how
	// long one is shown when they say nothing: being silent is news too.
	viewEvery = 250 * time.Millisecond
	viewFor   = 2 * time.Second
	// blockedFor is how long the counts of the last hour's blocks are shown.
	blockedFor = 10 * time.Second
)

// siteMeta is what people know of a site and no appliance needs: it makes no
// revision. Scopes of users select sites by these labels.
type siteMeta struct {
	DisplayName string            `json:"display_name,omitempty"`
	Location    string            `json:"location,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
}

func siteMetaKey(site string) string { return "site/" + site }

// view is the fabric at one moment, encoded once for everybody.
type view struct {
	config   *configs.Config
	revision control.Revision
	states   map[string]*SiteState
	metas    map[string]siteMeta
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
	mu       sync.Mutex
	metas    map[string]siteMeta // replaced, never written to
	metaSeq  uint64
	newest   *view
	seen     [3]uint64 // revision, states and metas of newest
	ruled    *ruled
	blocked  map[string]uint64
	blockedT time.Time
}

func (v *views) open(l *ledger.Ledger) error {
	v.metas = map[string]siteMeta{}
	var bad error
	err := l.View(func(tx *ledger.Tx) error {
		return tx.Scan("site/", "", func(key string, text []byte) bool {
			var m siteMeta
			if bad = json.Unmarshal(text, &m); bad != nil {
				return false
			}
			v.metas[strings.TrimPrefix(key, "site/")] = m
			return true
		})
	})
	if err = errors.Join(err, bad); err != nil {
		return fmt.Errorf("read site labels: %w", err)
	}
	return nil
}

// setMeta makes m what is known of a site; nil removes it.
func (v *views) setMeta(site string, m *siteMeta) {
	v.mu.Lock()
	defer v.mu.Unlock()
	next := maps.Clone(v.metas)
	if m == nil {
		delete(next, site)
	} else {
		next[site] = *m
	}
	v.metas = next
	v.metaSeq++
}

// view is the fabric now: what was committed is in it at once, what sites say
// within a quarter of a second.
func (s *Server) view(ctx context.Context) (*view, error) {
	v := &s.views
	config, rev := s.o.Plane.Current()
	states, version := s.o.States.States()
	now := s.now()
	blocked := s.blockedFlows(ctx, now)
	v.mu.Lock()
	defer v.mu.Unlock()
	want := [3]uint64{rev.Number, version, v.metaSeq}
	if n := v.newest; n != nil {
		age := now.Sub(n.at)
		same := want == v.seen
		asked := want[0] == v.seen[0] && want[2] == v.seen[2]
		if age >= 0 && (same && age < viewFor || asked && age < viewEvery) {
			return n, nil
		}
	}
	if v.ruled == nil || v.ruled.revision != rev.Number {
		r, err := ruledOf(config, rev.Number)
		if err != nil {
			return nil, err
		}
		v.ruled = r
	}
	v.newest = newView(config, rev, states, v.metas, v.ruled, blocked, now)
	v.seen = want
	return v.newest, nil
}

// past is the fabric as it was.
func (s *Server) past(ctx context.Context, at time.Time) (*view, error) {
	config, rev, err := s.o.Plane.At(at)
	if err != nil {
		return nil, err
	}
	if s.o.History == nil {
		return nil, fmt.Errorf("nothing is recorded: %w", ErrUnavailable)
	}
	states, err := s.o.History.StatesAt(ctx, at)
	if err != nil {
		return nil, err
	}
	r, err := ruledOf(config, rev.Number)
	if err != nil {
		return nil, err
	}
	s.views.mu.Lock()
	metas := s.views.metas
	s.views.mu.Unlock()
	return newView(config, rev, states, metas, r, nil, at), nil
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

func newView(c *configs.Config, rev control.Revision, states map[string]*SiteState, metas map[string]siteMeta, r *ruled, blocked map[string]uint64, now time.Time) *view {
	v := &view{config: c, revision: rev, states: states, metas: metas, at: now}
	v.sites = newCollection(func() []Site {
		list := make([]Site, 0, len(c.Sites))
		for i := range c.Sites {
			site := &c.Sites[i]
			list = append(list, siteShape(c, site, metas[site.Name], states[site.Name], rev.Number, now))
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
	return a.Everywhere() || a.Scope.Sees(v.metas[site].Labels)
}

// scope is what interfaces ask about sites, nil if the actor sees all.
func (v *view) scope(a *auth.Actor) func(string) bool {
	if a.Everywhere() {
		return nil
	}
	actor := *a
	return func(site string) bool { return v.sees(&actor, site) }
}
