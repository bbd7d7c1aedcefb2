package provision

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"go.yaml.in/yaml/v3"
)

// Network is network.yaml: the addresses of interfaces where DHCP and SLAAC do
// not give them. An interface that it does not name has both.
type Network struct {
	Interfaces []Interface  `yaml:"interfaces"`
	DNS        []netip.Addr `yaml:"dns"`
	NTP        []string     `yaml:"ntp"`
}

// Interface is one network interface.
type Interface struct {
	Name string `yaml:"name"`
	// MAC finds the interface that gets the name; empty means the one that has it.
	MAC string `yaml:"mac"`
	// DHCP asks for an IPv4 address; the default is yes, unless there are Addresses.
	DHCP      *bool          `yaml:"dhcp"`
	Addresses []netip.Prefix `yaml:"addresses"`
	Gateways  []netip.Addr   `yaml:"gateways"`
	MTU       int            `yaml:"mtu"`
}

// UseDHCP reports whether the interface asks for an IPv4 address.
func (i *Interface) UseDHCP() bool {
	if i.DHCP != nil {
		return *i.DHCP
	}
	return len(i.Addresses) == 0
}

// ParseNetwork reads network.yaml; unknown fields are errors, and so is what
// cannot be meant. All problems are told at once.
func ParseNetwork(text []byte) (*Network, error) {
	var n Network
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&n); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", NetworkFile, err)
	}
	var bad error
	names := map[string]bool{}
	for i := range n.Interfaces {
		p := &n.Interfaces[i]
		complain := func(format string, args ...any) {
			bad = errors.Join(bad, fmt.Errorf("%s: interfaces[%d]: %s", NetworkFile, i, fmt.Sprintf(format, args...)))
		}
		if p.Name == "" || len(p.Name) > 15 {
			complain("name %q: 1 to 15 characters", p.Name)
		}
		if names[p.Name] {
			complain("name %q is given twice", p.Name)
		}
		names[p.Name] = true
		if p.MAC != "" {
			if _, err := net.ParseMAC(p.MAC); err != nil {
				complain("mac: %v", err)
			}
		}
		if p.MTU != 0 && (p.MTU < 1280 || p.MTU > 65535) {
			complain("mtu %d: 1280 to 65535", p.MTU)
		}
	}
	if bad != nil {
		return nil, bad
	}
	return &n, nil
}

// Find is the interface of that name, or one with the defaults.
func (n *Network) Find(name string) Interface {
	for _, i := range n.Interfaces {
		if i.Name == name {
			return i
		}
	}
	return Interface{Name: name}
}
