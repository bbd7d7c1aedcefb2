package configs

import "slices"

// Self is this appliance's own site, nil if Sites does not have it (a checked
// configuration always does). It points into c.
func (c *Config) Self() *Site { return c.SiteByName(c.Site) }

// SiteByName finds a site, nil if there is none. It points into c.
func (c *Config) SiteByName(name string) *Site {
	for i := range c.Sites {
		if c.Sites[i].Name == name {
			return &c.Sites[i]
		}
	}
	return nil
}

// IsHub reports whether a site is a hub of a hub-and-spoke topology.
func (c *Config) IsHub(site string) bool {
	return c.Topology.Mode == HubAndSpoke && slices.Contains(c.Topology.Hubs, site)
}

// adjacent reports whether two different sites have direct paths: all pairs in
// a full mesh, pairs with a hub in them otherwise.
func (c *Config) adjacent(a, b string) bool {
	return a != b && (c.Topology.Mode != HubAndSpoke || c.IsHub(a) || c.IsHub(b))
}

// Peers are the sites that this one has direct paths to, in the order of
// Sites. They point into c.
func (c *Config) Peers() []*Site {
	var peers []*Site
	for i := range c.Sites {
		if c.adjacent(c.Site, c.Sites[i].Name) {
			peers = append(peers, &c.Sites[i])
		}
	}
	return peers
}

// NextSites are the sites that traffic for the site dst may be handed to, best
// first: dst itself if it is a peer, otherwise the hubs in the order of
// Topology.Hubs, of which the first that is up is to be taken. It is empty for
// this site itself and for an unknown one. They point into c.
//
// A hub is a peer of every site, so traffic crosses at most one site in
// between and cannot go round in circles.
func (c *Config) NextSites(dst string) []*Site {
	site := c.SiteByName(dst)
	switch {
	case site == nil || dst == c.Site:
		return nil
	case c.adjacent(c.Site, dst):
		return []*Site{site}
	}
	var hubs []*Site
	for _, name := range c.Topology.Hubs {
		if hub := c.SiteByName(name); hub != nil {
			hubs = append(hubs, hub)
		}
	}
	return hubs
}
