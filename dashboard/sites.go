package dashboard

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"

	"github.com/gofiber/fiber/v2"

	"patronus/appliance/ledger"
	"patronus/configs"
	"patronus/dashboard/auth"
	"patronus/dashboard/control"
)

// SiteBody is what can be written of a site.
type SiteBody struct {
	Name        string            `json:"name"`
	DisplayName string            `json:"display_name,omitempty"`
	Location    string            `json:"location,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Address     netip.Addr        `json:"address,omitzero"`
	Prefixes    []netip.Prefix    `json:"prefixes,omitempty"`
	Uplinks     []UplinkBody      `json:"uplinks,omitempty"`
}

// UplinkBody is what can be written of an uplink. Files and interfaces of the
// appliance are not among it: those are the appliance's own configuration.
type UplinkBody struct {
	Name        string           `json:"name"`
	PublicKey   configs.Key      `json:"public_key"`
	Endpoints   []netip.AddrPort `json:"endpoints,omitempty"`
	PathAddress netip.Addr       `json:"path_address,omitzero"`
	MTU         int              `json:"mtu,omitempty"`
	Keepalive   configs.Duration `json:"keepalive,omitempty"`
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
		"display_name": func(s *Site) value { return text(s.DisplayName) },
		"location":     func(s *Site) value { return text(s.Location) },
		"status":       func(s *Site) value { return text(s.Status) },
		"active_flows": func(s *Site) value { return number(float64(s.Flows)) },
		"paths_down":   func(s *Site) value { return number(float64(s.Paths.Down)) },
		"revision":     func(s *Site) value { return number(float64(s.Revision)) },
	}
}

func (s *Server) listSites(r *request) error {
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
	r.Set(fiber.HeaderETag, siteTag(v.config.SiteByName(x.ID), v.metas[x.ID]))
	return r.answer(http.StatusOK, x)
}

// siteTag is the entity tag of what can be written of a site.
func siteTag(s *configs.Site, m siteMeta) string {
	return tag(struct {
		Site *configs.Site
		Meta siteMeta
	}{s, m})
}

// apply puts the body into a site's configuration. What the body cannot say of
// an uplink stays as it was.
func (b *SiteBody) apply(old configs.Site) configs.Site {
	out := old
	out.Name, out.Address, out.Prefixes = b.Name, b.Address, b.Prefixes
	out.Uplinks = nil
	for _, u := range b.Uplinks {
		var next configs.Uplink
		for _, before := range old.Uplinks {
			if before.Name == u.Name {
				next = before
			}
		}
		next.Name, next.PublicKey, next.Endpoints, next.PathAddress = u.Name, u.PublicKey, u.Endpoints, u.PathAddress
		next.MTU, next.Keepalive = u.MTU, u.Keepalive
		out.Uplinks = append(out.Uplinks, next)
	}
	return out
}

// meta checks what of the body is no configuration.
func (b *SiteBody) meta() (siteMeta, error) {
	m := siteMeta{DisplayName: b.DisplayName, Location: b.Location, Labels: b.Labels}
	for _, f := range []struct{ name, text string }{{"display_name", b.DisplayName}, {"location", b.Location}} {
		if len(f.text) > 120 || plain(f.text) != f.text {
			return m, invalid(f.name, "has at most 120 printable characters")
		}
	}
	if len(b.Labels) > 32 {
		return m, invalid("labels", "are too many: at most 32")
	}
	for k, v := range b.Labels {
		if k == "" || len(k) > 63 || len(v) > 63 || plain(k) != k || plain(v) != v {
			return m, invalid("labels", "have names and values of 1 to 63 printable characters")
		}
	}
	return m, nil
}

func (s *Server) createSite(r *request) error {
	var b SiteBody
	if err := r.body(&b); err != nil {
		return err
	}
	m, err := b.meta()
	if err != nil {
		return err
	}
	if !r.actor.Scope.Sees(m.Labels) {
		return invalid("labels", "must have those of your own scope")
	}
	s.siteWrites.Lock()
	defer s.siteWrites.Unlock()
	a, err := s.change(r, control.Change{
		Action: "create_site", Kind: "site", ID: b.Name, Show: showSite(b.Name),
		Edit: func(c *configs.Config) error {
			if siteAt(c, b.Name) >= 0 {
				return problem(http.StatusConflict, "exists", fmt.Sprintf("there is a site %q already", b.Name))
			}
			c.Sites = with(c.Sites, -1, b.apply(configs.Site{}))
			return nil
		},
	})
	if err != nil {
		return err
	}
	if err := s.writeMeta(r, "create_site", b.Name, &m, a.DryRun); err != nil {
		return err
	}
	return r.accepted(a, "/api/v1/sites/"+b.Name)
}

func (s *Server) updateSite(r *request) error {
	id := r.Params("id")
	var b SiteBody
	if err := r.body(&b); err != nil {
		return err
	}
	if b.Name == "" {
		b.Name = id
	}
	if b.Name != id {
		return invalid("name", "cannot be changed: other sites know the site by it")
	}
	m, err := b.meta()
	if err != nil {
		return err
	}
	if !r.actor.Scope.Sees(m.Labels) {
		return invalid("labels", "must keep those of your own scope")
	}
	s.siteWrites.Lock()
	defer s.siteWrites.Unlock()
	v, err := s.view(r.UserContext())
	if err != nil {
		return err
	}
	if err := inScope(v, &r.actor, id); err != nil {
		return err
	}
	a, err := s.change(r, control.Change{
		Action: "update_site", Kind: "site", ID: id, Show: showSite(id),
		Edit: func(c *configs.Config) error {
			at := siteAt(c, id)
			if at < 0 {
				return notFound("site", id)
			}
			if err := r.match(siteTag(&c.Sites[at], v.metas[id])); err != nil {
				return err
			}
			c.Sites = with(c.Sites, at, b.apply(c.Sites[at]))
			return nil
		},
	})
	if err != nil {
		return err
	}
	if err := s.writeMeta(r, "update_site", id, &m, a.DryRun); err != nil {
		return err
	}
	return r.accepted(a, "/api/v1/sites/"+id)
}

func (s *Server) deleteSite(r *request) error {
	id := r.Params("id")
	s.siteWrites.Lock()
	defer s.siteWrites.Unlock()
	v, err := s.view(r.UserContext())
	if err != nil {
		return err
	}
	if err := inScope(v, &r.actor, id); err != nil {
		return err
	}
	a, err := s.change(r, control.Change{
		Action: "delete_site", Kind: "site", ID: id, Show: showSite(id),
		Edit: func(c *configs.Config) error {
			at := siteAt(c, id)
			if at < 0 {
				return notFound("site", id)
			}
			if err := r.match(siteTag(&c.Sites[at], v.metas[id])); err != nil {
				return err
			}
			c.Sites = without(c.Sites, at)
			return nil
		},
	})
	if err != nil {
		return err
	}
	if err := s.writeMeta(r, "delete_site", id, nil, a.DryRun); err != nil {
		return err
	}
	return r.accepted(a, "")
}

// showSite is a site in the audit log.
func showSite(name string) func(*configs.Config) any {
	return func(c *configs.Config) any {
		if at := siteAt(c, name); at >= 0 {
			return c.Sites[at]
		}
		return nil
	}
}

// writeMeta makes m what is known of a site beside its configuration, nil for
// nothing. The revision has been written before: a crash in between leaves a
// new site without labels, which no limited scope sees. siteWrites is held.
func (s *Server) writeMeta(r *request, action, site string, m *siteMeta, dry bool) error {
	s.views.mu.Lock()
	before, had := s.views.metas[site]
	s.views.mu.Unlock()
	same := m != nil && before.DisplayName == m.DisplayName && before.Location == m.Location && maps.Equal(before.Labels, m.Labels)
	if dry || same || m == nil && !had {
		return nil
	}
	rec := s.auditRecord(r, action, "site_labels", site)
	var err error
	if had {
		if rec.Before, err = json.Marshal(before); err != nil {
			return err
		}
	}
	if m != nil {
		if rec.After, err = json.Marshal(m); err != nil {
			return err
		}
	}
	err = s.o.Ledger.Update(r.UserContext(), func(tx *ledger.Tx) error {
		if m == nil {
			err = tx.Delete(siteMetaKey(site))
		} else {
			err = tx.Put(siteMetaKey(site), rec.After)
		}
		if err != nil {
			return err
		}
		return tx.Audit(rec)
	})
	if err != nil {
		return fmt.Errorf("write labels of site %s: %w", site, err)
	}
	s.views.setMeta(site, m)
	return nil
}
