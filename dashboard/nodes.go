package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"patronus/configs"
	"patronus/dashboard/auth"
	"patronus/dashboard/control"
)

func nodeRoutes() []Route {
	return []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/nodes", Name: "listNodes", Access: fabric(auth.ViewConfig), Status: 200,
			Doc: "List the appliances with their roles.", Answer: Page[Node]{}, handle: (*Server).listNodes,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/nodes/:id/promote", Name: "promoteNode", Access: fabric(auth.ManageNodes), Status: 202,
			Doc: "Give an appliance the dashboard role.", Answer: Node{}, handle: (*Server).promoteNode,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/nodes/:id/demote", Name: "demoteNode", Access: fabric(auth.ManageNodes), Status: 202,
			Doc: "Take the dashboard role from an appliance.", Answer: Node{}, handle: (*Server).demoteNode,
		},
	}
}

func (s *Server) listNodes(r *request) error {
	if s.o.Nodes == nil {
		return ErrUnavailable
	}
	nodes, err := s.o.Nodes.Nodes(r.UserContext())
	if err != nil {
		return err
	}
	if nodes == nil {
		nodes = []Node{}
	}
	n := len(nodes)
	return r.answer(http.StatusOK, Page[Node]{Items: nodes, Total: &n})
}

func (s *Server) promoteNode(r *request) error { return s.changeNode(r, "promote_node", Nodes.Promote) }

func (s *Server) demoteNode(r *request) error { return s.changeNode(r, "demote_node", Nodes.Demote) }

func (s *Server) changeNode(r *request, action string, do func(Nodes, context.Context, auth.Actor, string) (Node, error)) error {
	if s.o.Nodes == nil {
		return ErrUnavailable
	}
	id := r.Params("id")
	node, err := do(s.o.Nodes, r.UserContext(), r.actor, id)
	if err := s.audit(r, action, "node", id, nil, nil, err); err != nil {
		return err
	}
	return r.answer(http.StatusAccepted, node)
}

func explainRoutes() []Route {
	return []Route{{
		Method: http.MethodPost, Path: "/api/v1/explain", Name: "explain", Access: needs(auth.ViewFlows), Status: 200,
		Doc: "Say what becomes of a packet and why, by the code that decides it.", Body: Question{}, Answer: Explained{},
		Query: []Param{{"site", "string", "the site to ask; default the one that has the source"}}, handle: (*Server).explain,
	}}
}

// Explained is a site's answer to a question.
type Explained struct {
	Site        string          `json:"site"`
	Explanation json.RawMessage `json:"explanation"`
}

func (s *Server) explain(r *request) error {
	if s.o.Sites == nil {
		return ErrUnavailable
	}
	var q Question
	if err := r.body(&q); err != nil {
		return err
	}
	switch {
	case !q.From.IsValid():
		return invalid("from", "is missing: an address")
	case !q.To.IsValid():
		return invalid("to", "is missing: an address")
	case q.From.Is4() != q.To.Is4():
		return invalid("to", "is of another address family than from")
	}
	v, err := s.view(r.UserContext())
	if err != nil {
		return err
	}
	site := r.Query("site")
	if site == "" {
		for i := range v.config.Sites {
			x := &v.config.Sites[i]
			if slices.ContainsFunc(x.Prefixes, func(p netip.Prefix) bool { return p.Contains(q.From) }) {
				site = x.Name
			}
		}
		if site == "" {
			return invalid("from", "is in no site: say which site to ask")
		}
	}
	if err := inScope(v, &r.actor, site); err != nil {
		return err
	}
	x, err := s.o.Sites.Explain(r.UserContext(), site, q)
	if err != nil {
		return err
	}
	return r.answer(http.StatusOK, Explained{Site: site, Explanation: x})
}

// RevisionStatus is a revision and how far it has got.
type RevisionStatus struct {
	control.Revision
	Sites   int      `json:"sites"`
	Applied int      `json:"applied"`
	Pending []string `json:"pending,omitempty"` // at most 100 sites
	Failed  []Failed `json:"failed,omitempty"`
	// Bad: a site has tried the revision and rolled it back by itself.
	Bad bool `json:"bad,omitempty"`
}

// Failed is a site that refused a revision.
type Failed struct {
	Site string `json:"site"`
	Why  string `json:"why"`
}

func revisionRoutes() []Route {
	return []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/revisions", Name: "listRevisions", Access: fabric(auth.ViewConfig), Status: 200,
			Doc: "List the revisions of the configuration, the newest first.", Answer: Page[control.Revision]{},
			Query: []Param{{"limit", "integer", "1 to 1000; default 100"}}, handle: (*Server).listRevisions,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/revisions/:number", Name: "showRevision", Access: fabric(auth.ViewConfig), Status: 200,
			Doc: "Show a revision and which sites have applied it.", Answer: RevisionStatus{}, handle: (*Server).showRevision,
		},
	}
}

func (s *Server) listRevisions(r *request) error {
	limit, err := r.number("limit", defaultStored, 1, maxStored)
	if err != nil {
		return err
	}
	all := s.o.Plane.Revisions()
	n := len(all)
	page := Page[control.Revision]{Items: []control.Revision{}, Total: &n}
	for i := n - 1; i >= 0 && len(page.Items) < limit; i-- {
		page.Items = append(page.Items, all[i])
	}
	return r.answer(http.StatusOK, page)
}

func (s *Server) showRevision(r *request) error {
	const mostPending = 100
	all := s.o.Plane.Revisions()
	at := slices.IndexFunc(all, func(x control.Revision) bool { return strconv.FormatUint(x.Number, 10) == r.Params("number") })
	if at < 0 {
		return notFound("revision", r.Params("number"))
	}
	out := RevisionStatus{Revision: all[at]}
	network := s.o.Plane.Current().Network
	states, _ := s.o.States.States()
	for i := range network.Sites {
		if !network.Sites[i].Managed {
			continue
		}
		name := network.Sites[i].Name
		out.Sites++
		switch st := states[name]; {
		case st != nil && st.Revision >= out.Number:
			out.Applied++
		case st != nil && st.Failed != "":
			out.Failed = append(out.Failed, Failed{name, st.Failed})
			out.Bad = out.Bad || strings.Contains(st.Failed, configs.ErrRejected.Error())
		case len(out.Pending) < mostPending:
			out.Pending = append(out.Pending, name)
		}
	}
	return r.answer(http.StatusOK, out)
}

func healthRoutes() []Route {
	return []Route{
		{
			Method: http.MethodGet, Path: "/healthz", Name: "healthz", Access: public(), Status: 200, Unlimited: true,
			Doc: "Say that the process answers.", Answer: Health{}, handle: (*Server).healthz,
		},
		{
			Method: http.MethodGet, Path: "/readyz", Name: "readyz", Access: public(), Status: 200, Unlimited: true,
			Doc: "Say whether requests can be served: the store can be read, and there is a configuration.", Answer: Health{}, handle: (*Server).readyz,
		},
		{
			Method: http.MethodGet, Path: "/metrics", Name: "prometheus", Access: fabric(auth.ViewMetrics), Status: 200,
			Doc: "The dashboard's own metrics in Prometheus' text format.", handle: (*Server).prometheus,
		},
	}
}

// Health says whether all is well.
type Health struct {
	Status string   `json:"status"`
	Wrong  []string `json:"wrong,omitempty"`
}

func (s *Server) healthz(r *request) error { return r.answer(http.StatusOK, Health{Status: "ok"}) }

func (s *Server) readyz(r *request) error {
	h := Health{Status: "ok"}
	if err := s.o.Ledger.Health(); err != nil {
		h.Wrong = append(h.Wrong, "store")
	}
	if s.o.Plane.Current().Revision.Number == 0 {
		h.Wrong = append(h.Wrong, "configuration")
	}
	if _, err := s.view(r.UserContext()); err != nil && !errors.Is(err, context.Canceled) {
		h.Wrong = append(h.Wrong, "view")
	}
	if len(h.Wrong) == 0 {
		return r.answer(http.StatusOK, h)
	}
	h.Status = "not ready: " + strings.Join(h.Wrong, ", ")
	return r.answer(http.StatusServiceUnavailable, h)
}
