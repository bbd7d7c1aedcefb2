package dashboard

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/gofiber/fiber/v2"

	"patronus/configs"
	"patronus/dashboard/auth"
	"patronus/dashboard/control"
)

// RoutingPolicy is a traffic class with the paths that it wants: the first one
// in order whose match fits a flow decides.
type RoutingPolicy struct {
	ID       string `json:"id"`
	Position int    `json:"position"`
	configs.Class
}

// RoutingBody is what can be written of a routing policy. Position is where it
// is to stand, from 0; absent, a new one goes before the default class, and an
// old one stays.
type RoutingBody struct {
	configs.Class
	Position *int `json:"position,omitempty"`
}

func routingRoutes() []Route {
	dry := Param{"dry_run", "boolean", "check everything, write nothing"}
	return []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/routing-policies", Name: "listRoutingPolicies", Access: needs(auth.ViewPolicies), Status: 200, Past: true,
			Doc: "List the routing policies in the order in which they are asked.", Answer: Page[RoutingPolicy]{}, handle: (*Server).listRouting,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/routing-policies/:id", Name: "showRoutingPolicy", Access: needs(auth.ViewPolicies), Status: 200, Past: true,
			Doc: "Show one routing policy.", Answer: RoutingPolicy{}, handle: (*Server).showRouting,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/routing-policies", Name: "createRoutingPolicy", Access: fabric(auth.ManagePolicies), Status: 202, Create: true,
			Doc: "Add a routing policy.", Body: RoutingBody{}, Answer: Accepted{}, Query: []Param{dry}, handle: (*Server).createRouting,
		},
		{
			Method: http.MethodPut, Path: "/api/v1/routing-policies/:id", Name: "updateRoutingPolicy", Access: fabric(auth.ManagePolicies), Status: 202,
			Doc: "Replace a routing policy.", Body: RoutingBody{}, Answer: Accepted{}, Query: []Param{dry}, handle: (*Server).updateRouting,
		},
		{
			Method: http.MethodDelete, Path: "/api/v1/routing-policies/:id", Name: "deleteRoutingPolicy", Access: fabric(auth.DeletePolicies), Status: 202,
			Doc: "Remove a routing policy.", Answer: Accepted{}, Query: []Param{dry}, handle: (*Server).deleteRouting,
		},
	}
}

func classAt(list []configs.Class, name string) int {
	for i := range list {
		if list[i].Name == name {
			return i
		}
	}
	return -1
}

// configAt is the configuration that a request asks about.
func (s *Server) configAt(r *request) (*configs.Config, error) {
	if r.at.IsZero() {
		return s.o.Plane.Current().Config, nil
	}
	st, err := s.o.Plane.At(r.at)
	if err != nil {
		return nil, err
	}
	return st.Config, nil
}

func (s *Server) listRouting(r *request) error {
	c, err := s.configAt(r)
	if err != nil {
		return err
	}
	n := len(c.Classes)
	page := Page[RoutingPolicy]{Items: make([]RoutingPolicy, 0, n), Total: &n}
	for i := range c.Classes {
		page.Items = append(page.Items, RoutingPolicy{ID: c.Classes[i].Name, Position: i, Class: c.Classes[i]})
	}
	return r.answer(http.StatusOK, page)
}

func (s *Server) showRouting(r *request) error {
	c, err := s.configAt(r)
	if err != nil {
		return err
	}
	at := classAt(c.Classes, r.Params("id"))
	if at < 0 {
		return notFound("routing policy", r.Params("id"))
	}
	if now := s.o.Plane.Current().Network.Classes; r.at.IsZero() && classAt(now, c.Classes[at].Name) >= 0 {
		r.Set(fiber.HeaderETag, tag(now[classAt(now, c.Classes[at].Name)]))
	}
	return r.answer(http.StatusOK, RoutingPolicy{ID: c.Classes[at].Name, Position: at, Class: c.Classes[at]})
}

// placed puts a class where it is wanted. The default class, which takes the
// rest, has no place of its own but stays behind what is put without one.
func placed(list []configs.Class, class configs.Class, position *int, old int) []configs.Class {
	at := old
	if old >= 0 {
		list = slices.Delete(list, old, old+1)
	} else {
		at = len(list)
		if at > 0 && list[at-1].Name == configs.DefaultClass {
			at--
		}
	}
	if position != nil {
		at = min(*position, len(list))
	}
	return slices.Insert(list, at, class)
}

func (r *request) routingBody() (b RoutingBody, err error) {
	if err := r.body(&b); err != nil {
		return b, err
	}
	if b.Position != nil && *b.Position < 0 {
		return b, invalid("position", "is negative")
	}
	return b, nil
}

func (s *Server) createRouting(r *request) error {
	b, err := r.routingBody()
	if err != nil {
		return err
	}
	return s.commit(r, control.Change{
		Action: "create_routing_policy", Kind: "routing_policy", ID: b.Name, Show: showClass(b.Name),
		Edit: func(n *configs.Network) error {
			if classAt(n.Classes, b.Name) >= 0 {
				return problem(http.StatusConflict, "exists", fmt.Sprintf("there is a routing policy %q already", b.Name))
			}
			n.Classes = placed(n.Classes, b.Class, b.Position, -1)
			return nil
		},
	}, "/api/v1/routing-policies/"+b.Name)
}

func (s *Server) updateRouting(r *request) error {
	id := r.Params("id")
	b, err := r.routingBody()
	if err != nil {
		return err
	}
	if b.Name == "" {
		b.Name = id
	}
	if b.Name != id {
		return invalid("name", "cannot be changed: add one by the new name and remove this one")
	}
	return s.commit(r, control.Change{
		Action: "update_routing_policy", Kind: "routing_policy", ID: id, Show: showClass(id),
		Edit: func(n *configs.Network) error {
			at := classAt(n.Classes, id)
			if at < 0 {
				return notFound("routing policy", id)
			}
			if err := r.match(tag(n.Classes[at])); err != nil {
				return err
			}
			n.Classes = placed(n.Classes, b.Class, b.Position, at)
			return nil
		},
	}, "/api/v1/routing-policies/"+id)
}

func (s *Server) deleteRouting(r *request) error {
	id := r.Params("id")
	return s.commit(r, control.Change{
		Action: "delete_routing_policy", Kind: "routing_policy", ID: id, Show: showClass(id),
		Edit: func(n *configs.Network) error {
			at := classAt(n.Classes, id)
			if at < 0 {
				return notFound("routing policy", id)
			}
			if err := r.match(tag(n.Classes[at])); err != nil {
				return err
			}
			n.Classes = slices.Delete(n.Classes, at, at+1)
			return nil
		},
	}, "")
}

// showClass is a routing policy in the audit log.
func showClass(name string) func(*configs.Network) any {
	return func(n *configs.Network) any {
		if at := classAt(n.Classes, name); at >= 0 {
			return n.Classes[at]
		}
		return nil
	}
}
