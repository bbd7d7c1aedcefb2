package configs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
)

// Network is the configuration of a whole fabric, as a dashboard keeps it: what
// all sites share, and for each site what concerns it alone. [Network.Config]
// makes the configuration of one site from it.
//
// Like a [Config] it is immutable once it was checked; [Network.Clone] makes a
// copy to change.
type Network struct {
	Fabric     string         `yaml:"fabric" json:"fabric"`
	Topology   Topology       `yaml:"topology" json:"topology"`
	Sites      []NetworkSite  `yaml:"sites" json:"sites,omitempty"`
	Classes    []Class        `yaml:"classes" json:"classes,omitempty"`
	Probe      Probe          `yaml:"probe" json:"probe"`
	Flows      Flows          `yaml:"flows" json:"flows"`
	Hosts      []HostEndpoint `yaml:"endpoints" json:"endpoints,omitempty"`
	Namespaces []Namespace    `yaml:"namespaces" json:"namespaces,omitempty"`
	Policies   []Policy       `yaml:"policies" json:"policies,omitempty"`
	Export     Export         `yaml:"export" json:"export,omitzero"`
	// Alerts are the dashboard's own: nil until somebody writes them, see
	// [Network.Alerting].
	Alerts *Alerts `yaml:"alerts" json:"alerts,omitempty"`
}

// NetworkSite is a site with what only it must know.
type NetworkSite struct {
	Site `yaml:",inline"`
	// Managed sites are configured from here. The others are peers that a
	// managed site knows, which still follow their own files.
	Managed bool      `yaml:"managed" json:"managed"`
	DataDir string    `yaml:"data_dir" json:"data_dir,omitempty"`
	LAN     []LANPort `yaml:"lan" json:"lan,omitempty"`
	Devices []Device  `yaml:"devices" json:"devices,omitempty"`
	// Labels group sites for people, roles and rollouts; no packet sees them.
	Labels map[string]string `yaml:"labels" json:"labels,omitempty"`
}

// Site finds a site, nil if there is none. It points into n.
func (n *Network) Site(name string) *NetworkSite {
	for i := range n.Sites {
		if n.Sites[i].Name == name {
			return &n.Sites[i]
		}
	}
	return nil
}

// Clone is a deep copy.
func (n *Network) Clone() *Network {
	out := clone(reflect.ValueOf(*n)).Interface().(Network)
	return &out
}

// ErrNoSite is returned for a site that a network does not have.
var ErrNoSite = errors.New("no such site")

// Config makes the configuration of one site, checked and with its defaults:
// of the others' uplinks it carries only what a peer needs. Other sites that
// are pending are not in it.
func (n *Network) Config(site string) (*Config, error) {
	n = n.settled(site)
	self := n.Site(site)
	if self == nil {
		return nil, fmt.Errorf("site %q: %w", site, ErrNoSite)
	}
	c := Config{
		Fabric: n.Fabric, Site: site, DataDir: self.DataDir, Topology: n.Topology,
		LAN: self.LAN, Devices: self.Devices, Classes: n.Classes, Probe: n.Probe, Flows: n.Flows,
		Hosts: n.Hosts, Namespaces: n.Namespaces, Policies: n.Policies, Export: n.Export,
		Sites: make([]Site, len(n.Sites)),
	}
	for i := range n.Sites {
		c.Sites[i] = n.Sites[i].Site
		if c.Sites[i].Name == site {
			continue
		}
		uplinks := slices.Clone(c.Sites[i].Uplinks)
		for k, u := range uplinks {
			uplinks[k] = Uplink{Name: u.Name, PublicKey: u.PublicKey, Endpoints: u.Endpoints, PathAddress: u.PathAddress}
		}
		c.Sites[i].Uplinks = uplinks
	}
	out, err := New(c)
	if err != nil {
		return nil, fmt.Errorf("site %s: %w", site, err)
	}
	return out, nil
}

// Validate checks every managed site's configuration: what it returns nil for can be
// run everywhere. All problems are told, each site's once.
func (n *Network) Validate() error {
	if len(n.Sites) == 0 {
		return &FieldError{Path: "sites", Why: "a network has at least one site"}
	}
	var problems []error
	told := make(map[string]bool)
	for i := range n.Sites {
		if !n.Sites[i].Managed {
			continue
		}
		_, err := n.Config(n.Sites[i].Name)
		if err == nil {
			continue
		}
		// What all sites share is wrong everywhere, and told once.
		var list Problems
		if !errors.As(err, &list) {
			problems = append(problems, err)
			continue
		}
		for _, p := range list {
			if text := p.Error(); !told[text] {
				told[text] = true
				problems = append(problems, p)
			}
		}
	}
	return errors.Join(problems...)
}

// FromConfig makes the network that a standalone site knows: itself in full,
// and the others as its peers. A dashboard that is promoted on it begins so.
func FromConfig(c *Config) *Network {
	n := Network{
		Fabric: c.Fabric, Topology: c.Topology, Classes: c.Classes, Probe: c.Probe, Flows: c.Flows,
		Hosts: c.Hosts, Namespaces: c.Namespaces, Policies: c.Policies, Export: c.Export,
	}
	for i := range c.Sites {
		s := NetworkSite{Site: c.Sites[i]}
		if s.Name == c.Site {
			s.Managed, s.DataDir, s.LAN, s.Devices = true, c.DataDir, c.LAN, c.Devices
		}
		n.Sites = append(n.Sites, s)
	}
	return n.Clone()
}

// Adopt makes a site managed, by what its own configuration says of what
// concerns it alone: its LAN ports, its devices, and of its uplinks how they
// are attached. Everything else stays as the network has it.
func (n *Network) Adopt(c *Config) error {
	s := n.Site(c.Site)
	switch {
	case c.Fabric != n.Fabric:
		return fmt.Errorf("adopt site %s: %w: %s", c.Site, ErrFabric, c.Fabric)
	case s == nil || c.Self() == nil:
		return fmt.Errorf("adopt site %s: %w", c.Site, ErrNoSite)
	}
	// Configurations are immutable: what is taken from one is shared.
	own := c.Self()
	s.Managed, s.DataDir, s.LAN, s.Devices = true, c.DataDir, c.LAN, c.Devices
	uplinks := slices.Clone(s.Uplinks)
	for i := range uplinks {
		u := &uplinks[i]
		for _, o := range own.Uplinks {
			if o.Name == u.Name {
				u.PrivateKeyFile, u.ListenPort, u.Interface, u.Source = o.PrivateKeyFile, o.ListenPort, o.Interface, o.Source
				u.MTU, u.Keepalive = o.MTU, o.Keepalive
			}
		}
	}
	s.Uplinks = uplinks
	return nil
}

// Canonical is the JSON of a network, like [Config.Canonical].
func (n *Network) Canonical() ([]byte, error) {
	text, err := json.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("encode network: %w", err)
	}
	return text, nil
}

// DecodeNetwork reads the JSON of [Network.Canonical]. Unknown fields are
// refused; whether it can be run is for [Network.Validate] to say.
func DecodeNetwork(text []byte) (*Network, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var n Network
	if err := dec.Decode(&n); err != nil {
		return nil, fmt.Errorf("decode network: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("decode network: text after its end")
	}
	return n.Clone(), nil
}
