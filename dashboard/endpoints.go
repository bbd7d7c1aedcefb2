package dashboard

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"

	"github.com/gofiber/fiber/v2"

	"patronus/configs"
	"patronus/dashboard/auth"
	"patronus/dashboard/control"
)

// Endpoint is a host endpoint as the API shows it: a labelled address behind a
// site that policies select.
type Endpoint struct {
	ID string `json:"id"`
	configs.HostEndpoint
}

// EndpointBody is what can be written of a host endpoint.
type EndpointBody struct {
	Namespace string              `json:"namespace,omitempty"`
	Name      string              `json:"name"`
	Site      string              `json:"site,omitempty"`
	Addresses []Prefix            `json:"addresses"`
	Labels    map[string]string   `json:"labels,omitempty"`
	Ports     []configs.NamedPort `json:"ports,omitempty"`
}

func (b *EndpointBody) endpoint() configs.HostEndpoint {
	h := configs.HostEndpoint{
		Namespace: cmp.Or(b.Namespace, configs.DefaultNamespace), Name: b.Name, Site: b.Site, Labels: b.Labels, Ports: b.Ports, Origin: "rest",
	}
	for _, p := range b.Addresses {
		h.Addresses = append(h.Addresses, p.Prefix)
	}
	return h
}

func endpointRoutes() []Route {
	dry := Param{"dry_run", "boolean", "check everything, write nothing"}
	return []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/endpoints", Name: "listEndpoints", Access: needs(auth.ViewPolicies), Status: 200, Past: true,
			Doc: "List the labelled addresses that policies select.", Answer: Page[Endpoint]{}, Query: listQuery(endpointFields(), true), handle: (*Server).listEndpoints,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/endpoints/:id", Name: "showEndpoint", Access: needs(auth.ViewPolicies), Status: 200, Past: true,
			Doc: "Show one endpoint; its id is namespace~name.", Answer: Endpoint{}, handle: (*Server).showEndpoint,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/endpoints", Name: "createEndpoint", Access: needs(auth.ManagePolicies), Status: 202, Create: true,
			Doc: "Add an endpoint.", Body: EndpointBody{}, Answer: Accepted{}, Query: []Param{dry}, handle: (*Server).createEndpoint,
		},
		{
			Method: http.MethodPut, Path: "/api/v1/endpoints/:id", Name: "updateEndpoint", Access: needs(auth.ManagePolicies), Status: 202,
			Doc: "Replace an endpoint.", Body: EndpointBody{}, Answer: Accepted{}, Query: []Param{dry}, handle: (*Server).updateEndpoint,
		},
		{
			Method: http.MethodDelete, Path: "/api/v1/endpoints/:id", Name: "deleteEndpoint", Access: needs(auth.DeletePolicies), Status: 202,
			Doc: "Remove an endpoint.", Answer: Accepted{}, Query: []Param{dry}, handle: (*Server).deleteEndpoint,
		},
	}
}

func endpointFields() fields[Endpoint] {
	return fields[Endpoint]{
		"id":        func(e *Endpoint) value { return text(e.ID) },
		"namespace": func(e *Endpoint) value { return text(e.Namespace) },
		"name":      func(e *Endpoint) value { return text(e.Name) },
		"site":      func(e *Endpoint) value { return text(e.Site) },
		"origin":    func(e *Endpoint) value { return text(e.Origin) },
		"address": func(e *Endpoint) value {
			if len(e.Addresses) == 0 {
				return text("")
			}
			return text(e.Addresses[0].String())
		},
	}
}

func endpointAt(list []configs.HostEndpoint, id string) int {
	for i := range list {
		if policyID(cmp.Or(list[i].Namespace, configs.DefaultNamespace), list[i].Name) == id {
			return i
		}
	}
	return -1
}

func (s *Server) listEndpoints(r *request) error {
	v, err := s.seen(r)
	if err != nil {
		return err
	}
	all := newCollection(func() []Endpoint {
		list := make([]Endpoint, 0, len(v.config.Hosts))
		for _, h := range v.config.Hosts {
			list = append(list, Endpoint{ID: policyID(h.Namespace, h.Name), HostEndpoint: h})
		}
		return list
	}, func(e *Endpoint) string { return e.ID })
	l := listing[Endpoint]{fields: endpointFields(), labels: func(e *Endpoint) map[string]string { return e.Labels }}
	if !r.actor.Everywhere() {
		l.sees = func(e *Endpoint) bool { return v.sees(&r.actor, e.Site) }
	}
	return listed(r, all, l)
}

func (s *Server) showEndpoint(r *request) error {
	v, err := s.seen(r)
	if err != nil {
		return err
	}
	at := endpointAt(v.config.Hosts, r.Params("id"))
	if at < 0 || !v.sees(&r.actor, v.config.Hosts[at].Site) {
		return notFound("endpoint", r.Params("id"))
	}
	h := v.config.Hosts[at]
	if now := s.o.Plane.Current().Network.Hosts; r.at.IsZero() {
		if i := endpointAt(now, r.Params("id")); i >= 0 {
			r.Set(fiber.HeaderETag, tag(now[i]))
		}
	}
	return r.answer(http.StatusOK, Endpoint{ID: policyID(h.Namespace, h.Name), HostEndpoint: h})
}

// endpointBody reads a body whose site is in the actor's scope.
func (s *Server) endpointBody(r *request) (configs.HostEndpoint, *view, error) {
	var b EndpointBody
	if err := r.body(&b); err != nil {
		return configs.HostEndpoint{}, nil, err
	}
	v, err := s.view(r.UserContext())
	if err != nil {
		return configs.HostEndpoint{}, nil, err
	}
	h := b.endpoint()
	if !v.sees(&r.actor, h.Site) {
		return h, v, invalid("site", "must be one of your scope")
	}
	return h, v, nil
}

func (s *Server) createEndpoint(r *request) error {
	h, _, err := s.endpointBody(r)
	if err != nil {
		return err
	}
	id := policyID(h.Namespace, h.Name)
	return s.commit(r, control.Change{
		Action: "create_endpoint", Kind: "endpoint", ID: id, Show: showHost(id),
		Edit: func(n *configs.Network) error {
			if endpointAt(n.Hosts, id) >= 0 {
				return problem(http.StatusConflict, "exists", fmt.Sprintf("there is an endpoint %q already", id))
			}
			n.Hosts = append(n.Hosts, h)
			return nil
		},
	}, "/api/v1/endpoints/"+id)
}

func (s *Server) updateEndpoint(r *request) error {
	id := r.Params("id")
	h, v, err := s.endpointBody(r)
	if err != nil {
		return err
	}
	if policyID(h.Namespace, h.Name) != id {
		return invalid("name", "and namespace cannot be changed")
	}
	return s.commit(r, control.Change{
		Action: "update_endpoint", Kind: "endpoint", ID: id, Show: showHost(id),
		Edit: func(n *configs.Network) error {
			at := endpointAt(n.Hosts, id)
			if at < 0 || !v.sees(&r.actor, n.Hosts[at].Site) {
				return notFound("endpoint", id)
			}
			if err := r.match(tag(n.Hosts[at])); err != nil {
				return err
			}
			n.Hosts[at] = h
			return nil
		},
	}, "/api/v1/endpoints/"+id)
}

func (s *Server) deleteEndpoint(r *request) error {
	id := r.Params("id")
	v, err := s.view(r.UserContext())
	if err != nil {
		return err
	}
	return s.commit(r, control.Change{
		Action: "delete_endpoint", Kind: "endpoint", ID: id, Show: showHost(id),
		Edit: func(n *configs.Network) error {
			at := endpointAt(n.Hosts, id)
			if at < 0 || !v.sees(&r.actor, n.Hosts[at].Site) {
				return notFound("endpoint", id)
			}
			if err := r.match(tag(n.Hosts[at])); err != nil {
				return err
			}
			n.Hosts = slices.Delete(n.Hosts, at, at+1)
			return nil
		},
	}, "")
}

// showHost is an endpoint in the audit log.
func showHost(id string) func(*configs.Network) any {
	return func(n *configs.Network) any {
		if at := endpointAt(n.Hosts, id); at >= 0 {
			return n.Hosts[at]
		}
		return nil
	}
}
