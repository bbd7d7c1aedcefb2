package dashboard

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"

	"github.com/gofiber/fiber/v2"

	"patronus/configs"
	"patronus/dashboard/auth"
	"patronus/dashboard/control"
)

// SiteBody is what can be written of a site.
type SiteBody struct {
	Name     string            `json:"name"`
	Labels   map[string]string `json:"labels,omitempty"`
	Address  netip.Addr        `json:"address,omitzero"`
	Prefixes []netip.Prefix    `json:"prefixes,omitempty"`
	Uplinks  []UplinkBody      `json:"uplinks,omitempty"`
	// LAN are the ports of a site that waits for its appliance: they are in the
	// first configuration that it gets. Of a site that has one they are its own.
	LAN []configs.LANPort `json:"lan,omitempty"`
}

// UplinkBody is what can be written of an uplink. Files of the appliance are
// not among it: those are the appliance's own configuration.
type UplinkBody struct {
	Name string `json:"name"`
	// PublicKey is left out of a site whose appliance brings it by enrollment.
	PublicKey   configs.Key      `json:"public_key,omitzero"`
	Endpoints   []netip.AddrPort `json:"endpoints,omitempty"`
	PathAddress netip.Addr       `json:"path_address,omitzero"`
	MTU         int              `json:"mtu,omitempty"`
	Keepalive   configs.Duration `json:"keepalive,omitempty"`
	// Interface and ListenPort are for the first configuration of a site that
	// waits for its appliance.
	Interface  string `json:"interface,omitempty"`
	ListenPort uint16 `json:"listen_port,omitempty"`
}

func siteRoutes() []Route {
	dry := Param{"dry_run", "boolean", "check everything, write nothing"}
	return []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/sites", Name: "listSites", Access: needs(auth.ViewSites), Status: 200, Past: true,
			Doc: "List the sites with their state.", Answer: Page[Site]{}, Query: listQuery(siteFields(), true), handle: (*Server).listSites,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/sites/:id", Name: "showSite", Access: needs(auth.ViewSites), Status: 200, Past: true,
			Doc: "Show one site.", Answer: Site{}, handle: (*Server).showSite,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/sites", Name: "createSite", Access: needs(auth.ManageSites), Status: 202, Create: true,
			Doc: "Register a site.", Body: SiteBody{}, Answer: Accepted{}, Query: []Param{dry}, handle: (*Server).createSite,
		},
		{
			Method: http.MethodPut, Path: "/api/v1/sites/:id", Name: "updateSite", Access: needs(auth.ManageSites), Status: 202,
			Doc: "Replace what is configured of a site.", Body: SiteBody{}, Answer: Accepted{}, Query: []Param{dry}, handle: (*Server).updateSite,
		},
		{
			Method: http.MethodDelete, Path: "/api/v1/sites/:id", Name: "deleteSite", Access: needs(auth.DeleteSites), Status: 202,
			Doc: "Remove a site.", Answer: Accepted{}, Query: []Param{dry}, handle: (*Server).deleteSite,
		},
	}
}

func siteFields() fields[Site] {
	return fields[Site]{
		"id":           func(s *Site) value { return text(s.ID) },
		"name":         func(s *Site) value { return text(s.Name) },
		"managed":      func(s *Site) value { return text(strconv.FormatBool(s.Managed)) },
		"status":       func(s *Site) value { return text(s.Status) },
		"active_flows": func(s *Site) value { return number(float64(s.Flows)) },
		"paths_down":   func(s *Site) value { return number(float64(s.Paths.Down)) },
		"revision":     func(s *Site) value { return number(float64(s.Revision)) },
	}
}

func (s *Server) listSites(r *request) error {
	defer s.meter.query("list_sites")()
	v, err := s.seen(r)
	if err != nil {
		return err
	}
	l := listing[Site]{fields: siteFields(), labels: func(x *Site) map[string]string { return x.Labels }}
	if !r.actor.Everywhere() {
		l.sees = func(x *Site) bool { return r.actor.Scope.Sees(x.Labels) }
	}
	return listed(r, v.sites, l)
}

func (s *Server) showSite(r *request) error {
	v, err := s.seen(r)
	if err != nil {
		return err
	}
	x, ok := v.sites.find(r.Params("id"))
	if !ok || !v.sees(&r.actor, x.ID) {
		return notFound("site", r.Params("id"))
	}
	if r.at.IsZero() {
		if n := s.o.Plane.Current().Network.Site(x.ID); n != nil {
			r.Set(fiber.HeaderETag, tag(n))
		}
	}
	return r.answer(http.StatusOK, x)
}

// apply puts the body into a site's configuration. What the body cannot say
// stays as it was: how the appliance is attached is its own.
func (b *SiteBody) apply(s *configs.NetworkSite) {
	old := s.Uplinks
	s.Name, s.Address, s.Prefixes, s.Labels, s.Uplinks = b.Name, b.Address, b.Prefixes, b.Labels, nil
	for _, u := range b.Uplinks {
		var next configs.Uplink
		for _, before := range old {
			if before.Name == u.Name {
				next = before
			}
		}
		next.Name, next.PublicKey, next.Endpoints, next.PathAddress = u.Name, u.PublicKey, u.Endpoints, u.PathAddress
		next.MTU, next.Keepalive = u.MTU, u.Keepalive
		if u.Interface != "" {
			next.Interface = u.Interface
		}
		if u.ListenPort != 0 {
			next.ListenPort = u.ListenPort
		}
		s.Uplinks = append(s.Uplinks, next)
	}
	if b.LAN != nil && !s.Managed {
		s.LAN = b.LAN
	}
}

// siteBody reads a body whose labels keep the site in the actor's scope.
func (r *request) siteBody() (b SiteBody, err error) {
	if err := r.body(&b); err != nil {
		return b, err
	}
	if len(b.Labels) > 32 {
		return b, invalid("labels", "are too many: at most 32")
	}
	for k, v := range b.Labels {
		if k == "" || len(k) > 63 || len(v) > 63 || plain(k) != k || plain(v) != v {
			return b, invalid("labels", "have names and values of 1 to 63 printable characters")
		}
	}
	if !r.actor.Scope.Sees(b.Labels) {
		return b, invalid("labels", "must have those of your own scope")
	}
	return b, nil
}

func (s *Server) createSite(r *request) error {
	b, err := r.siteBody()
	if err != nil {
		return err
	}
	return s.commit(r, control.Change{
		Action: "create_site", Kind: "site", ID: b.Name, Show: showSite(b.Name),
		Edit: func(n *configs.Network) error {
			if siteAt(n, b.Name) >= 0 {
				return problem(http.StatusConflict, "exists", fmt.Sprintf("there is a site %.80q already", b.Name))
			}
			var site configs.NetworkSite
			b.apply(&site)
			n.Sites = append(n.Sites, site)
			return nil
		},
	}, "/api/v1/sites/"+b.Name)
}

func (s *Server) updateSite(r *request) error {
	id := r.Params("id")
	b, err := r.siteBody()
	if err != nil {
		return err
	}
	if b.Name == "" {
		b.Name = id
	}
	if b.Name != id {
		return invalid("name", "cannot be changed: other sites know the site by it")
	}
	return s.commit(r, control.Change{
		Action: "update_site", Kind: "site", ID: id, Show: showSite(id),
		Edit: func(n *configs.Network) error {
			site, err := r.writable(n, id)
			if err != nil {
				return err
			}
			b.apply(site)
			return nil
		},
	}, "/api/v1/sites/"+id)
}

func (s *Server) deleteSite(r *request) error {
	id := r.Params("id")
	return s.commit(r, control.Change{
		Action: "delete_site", Kind: "site", ID: id, Show: showSite(id),
		Edit: func(n *configs.Network) error {
			if _, err := r.writable(n, id); err != nil {
				return err
			}
			at := siteAt(n, id)
			n.Sites = slices.Delete(n.Sites, at, at+1)
			return nil
		},
	}, "")
}

// writable finds a site in the actor's scope that is as the request has seen it.
func (r *request) writable(n *configs.Network, id string) (*configs.NetworkSite, error) {
	site := n.Site(id)
	if site == nil || !r.actor.Scope.Sees(site.Labels) {
		return nil, notFound("site", id)
	}
	return site, r.match(tag(site))
}

// showSite is a site in the audit log.
func showSite(name string) func(*configs.Network) any {
	return func(n *configs.Network) any {
		if site := n.Site(name); site != nil {
			return site
		}
		return nil
	}
}
