package netstack

import (
	"sync/atomic"

	"patronus/netstack/flow"
	"patronus/netstack/path"
)

// steering is what the packet path knows of all paths at one time. It is
// immutable; the prober swaps in a new one when something changes that could
// move a flow.
type steering struct {
	// generation rises with every change; flows remember it.
	generation uint32
	classes    *path.Classes
	paths      []*pathState // by index
	// toward lists for each site the ways to it, best first: the paths to the
	// site itself, or to each hub.
	toward [][]way
	// site lists each site's own paths, by index.
	site []way
	// considered caches what the records of flows say of the candidates, by site
	// and class: a flood of new flows shares it.
	considered []atomic.Pointer[[]flow.Candidate]
}

// way is a set of paths that lead to one neighbouring site.
type way struct {
	candidates []path.Candidate
}

// path is the path with an index, or nil.
func (st *steering) path(index uint16) *pathState {
	if int(index) < len(st.paths) {
		return st.paths[index]
	}
	return nil
}

// choose steers a flow to a site. With several ways (hubs), the first one that
// has a usable path is taken.
func (st *steering) choose(site uint16, class path.ClassID, hash uint64, current *pathState) (*pathState, path.Why) {
	if int(site) >= len(st.toward) {
		return nil, path.WhyNone
	}
	at := -1
	if current != nil {
		at = int(current.index)
	}
	c := st.classes.Class(class)
	last, lastWhy := -1, path.WhyNone
	for _, w := range st.toward[site] {
		winner, why := path.Steer(c, w.candidates, hash, at)
		if winner >= 0 && why != path.WhyLastResort {
			return st.paths[winner], why
		}
		if last < 0 {
			last, lastWhy = winner, why
		}
	}
	if last < 0 {
		return nil, lastWhy
	}
	return st.paths[last], lastWhy
}

// explain adds to a flow's record why it goes where it goes.
func (st *steering) explain(r *flow.Record, site uint16, class path.ClassID, winner *pathState, why path.Why) *flow.Record {
	next := flow.Record{}
	if r != nil {
		next = *r
	}
	next.Candidates = st.candidates(site, class)
	next.Winner, next.Why = string(winner.id), why.String()
	return &next
}

// candidates are the paths to a site as a class sees them. The slice is shared
// and must not be changed.
func (st *steering) candidates(site uint16, class path.ClassID) []flow.Candidate {
	at := &st.considered[int(site)*st.classes.Len()+int(class)]
	if known := at.Load(); known != nil {
		return *known
	}
	var all []flow.Candidate
	c := st.classes.Class(class)
	for _, w := range st.toward[site] {
		_, _, considered := path.Explain(c, w.candidates, 0, -1)
		for _, one := range considered {
			all = append(all, flow.Candidate{
				Path: string(one.Path), Score: int16(one.Score), State: one.State.String(), Usable: one.Usable,
			})
		}
	}
	at.Store(&all)
	return all
}

// resteer publishes the present state of all paths. Every flow's next packet
// asks again; most stay where they are.
func (e *Engine) resteer() {
	e.steerMu.Lock()
	defer e.steerMu.Unlock()
	if s := e.snapshot.Load(); s != nil {
		s.steering.Store(e.newSteering(s, *e.pathList.Load()))
	}
}

// publish makes a new revision and its paths the running ones.
func (e *Engine) publish(s *snapshot, paths []*pathState) {
	e.steerMu.Lock()
	defer e.steerMu.Unlock()
	s.steering.Store(e.newSteering(s, paths))
	e.pathList.Store(&paths)
	e.snapshot.Store(s)
}

// newSteering takes the present state of all paths. The caller holds steerMu.
func (e *Engine) newSteering(s *snapshot, paths []*pathState) *steering {
	if e.generation++; e.generation&flow.SteerMask == 0 {
		e.generation++ // 0 in a flow's binding means: never steered
	}
	st := &steering{
		generation: e.generation, classes: s.classes, paths: paths,
		toward: make([][]way, len(s.sites)), site: make([]way, len(s.sites)),
		considered: make([]atomic.Pointer[[]flow.Candidate], len(s.sites)*s.classes.Len()),
	}
	for _, p := range paths {
		if p == nil {
			continue
		}
		if i, ok := s.index[p.site]; ok {
			w := &st.site[i]
			w.candidates = append(w.candidates, p.candidate())
		}
	}
	for i := range s.sites {
		for _, via := range s.sites[i].via {
			st.toward[i] = append(st.toward[i], st.site[via])
		}
	}
	return st
}
