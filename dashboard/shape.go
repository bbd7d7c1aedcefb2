package dashboard

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"patronus/configs"
	"patronus/netstack/path"
	"patronus/netstack/policy"
)

// The states of a site and of a path, as the API writes them.
const (
	stateUp       = "up"
	stateDegraded = "degraded"
	stateDown     = "down"
	stateUnknown  = "unknown"
)

// silentAfter is how long a site may be silent and still count as up: what is
// shown as up was proved a moment ago.
const silentAfter = 15 * time.Second

// Site is a site as the API shows it: what was asked for, and how it is.
type Site struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Labels   map[string]string `json:"labels"`
	Status   string            `json:"status"`
	Reason   string            `json:"reason,omitempty"`
	Address  netip.Addr        `json:"address"`
	Prefixes []netip.Prefix    `json:"prefixes"`
	Uplinks  []SiteUplink      `json:"uplinks"`
	Paths    PathCounts        `json:"paths"`
	Flows    int               `json:"active_flows"`
	Hub      bool              `json:"hub"`
	// Managed sites are configured from here; the others follow their own files.
	Managed bool `json:"managed"`
	// Revision is what the site has applied, InSync whether that is the newest.
	Revision uint64    `json:"revision"`
	InSync   bool      `json:"in_sync"`
	SeenAt   time.Time `json:"seen_at,omitzero"`
	Version  string    `json:"software_version,omitempty"`
	Started  time.Time `json:"started_at,omitzero"`
}

// SiteUplink is an uplink as the API shows it.
type SiteUplink struct {
	Name      string           `json:"name"`
	PublicKey string           `json:"public_key"`
	Endpoints []netip.AddrPort `json:"endpoints"`
	Carrier   *bool            `json:"carrier"` // nil if it is not known
}

// PathCounts are paths by their state.
type PathCounts struct {
	Total    int `json:"total"`
	Up       int `json:"up"`
	Degraded int `json:"degraded"`
	Down     int `json:"down"`
	Unknown  int `json:"unknown"`
}

func (c *PathCounts) count(state string) {
	c.Total++
	switch state {
	case stateUp:
		c.Up++
	case stateDegraded:
		c.Degraded++
	case stateDown:
		c.Down++
	default:
		c.Unknown++
	}
}

// Ref names a site.
type Ref struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Path is a path as the API shows it.
type Path struct {
	ID           path.ID               `json:"id"`
	Source       Ref                   `json:"source"`
	Destination  Ref                   `json:"destination"`
	Uplink       string                `json:"uplink"`
	RemoteUplink string                `json:"remote_uplink"`
	Status       string                `json:"status"`
	Reason       string                `json:"reason,omitempty"`
	Since        time.Time             `json:"since,omitzero"`
	ObservedAt   time.Time             `json:"observed_at,omitzero"`
	HandshakeAt  time.Time             `json:"last_handshake_at,omitzero"`
	Endpoint     string                `json:"endpoint,omitempty"`
	MTU          int                   `json:"mtu,omitempty"`
	Metrics      path.Metrics          `json:"metrics"`
	Scores       map[string]path.Score `json:"scores"`
	TxBytes      uint64                `json:"tx_bytes"`
	RxBytes      uint64                `json:"rx_bytes"`
}

// Policy is a policy as the API shows it.
type Policy struct {
	ID        string             `json:"id"`
	Kind      string             `json:"kind"`
	Namespace string             `json:"namespace,omitempty"`
	Name      string             `json:"name"`
	Mode      configs.PolicyMode `json:"mode"`
	Enabled   bool               `json:"enabled"`
	Answer    string             `json:"answer"`
	Types     []string           `json:"types"`
	Spec      string             `json:"spec"`
	// AppliesTo counts the host endpoints that the policy selects.
	AppliesTo int `json:"applies_to"`
	// BlocksLastHour counts flows, null if nothing is recorded.
	BlocksLastHour *uint64 `json:"blocks_last_hour"`
	AllowedFlows   uint64  `json:"allowed_flows"`
	DeniedFlows    uint64  `json:"denied_flows"`
	StagedFlows    uint64  `json:"staged_flows"`
}

// policyID is a policy's id in URLs: namespace~name, and ~name of a
// ClusterNetworkPolicy, which has no namespace.
func policyID(namespace, name string) string { return namespace + "~" + name }

// longPolicyID is the name that decisions and counters have: Kind/namespace/name.
func longPolicyID(id string) string {
	namespace, name, ok := strings.Cut(id, "~")
	if !ok {
		return ""
	}
	kind := policy.KindNetworkPolicy
	if namespace == "" {
		kind = policy.KindClusterNetworkPolicy
	}
	return kind + "/" + namespace + "/" + name
}

// siteShape makes a site of its configuration and its state, which may be nil.
func siteShape(c *configs.Config, s *configs.NetworkSite, st *SiteState, newest uint64, now time.Time) Site {
	out := Site{
		ID: s.Name, Name: s.Name, Labels: s.Labels, Managed: s.Managed,
		Address: s.Address, Prefixes: s.Prefixes, Uplinks: []SiteUplink{}, Hub: c.IsHub(s.Name),
		Status: stateUnknown, Reason: "it has not been heard of yet",
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	if out.Prefixes == nil {
		out.Prefixes = []netip.Prefix{}
	}
	if !out.Address.IsValid() {
		out.Address = c.OverlayAddress(&s.Site)
	}
	for i := range s.Uplinks {
		u := SiteUplink{Name: s.Uplinks[i].Name, PublicKey: s.Uplinks[i].PublicKey.String(), Endpoints: s.Uplinks[i].Endpoints}
		if u.Endpoints == nil {
			u.Endpoints = []netip.AddrPort{}
		}
		if st != nil {
			if j := slices.IndexFunc(st.Uplinks, func(x UplinkState) bool { return x.Name == u.Name }); j >= 0 {
				u.Carrier = &st.Uplinks[j].Carrier
			}
		}
		out.Uplinks = append(out.Uplinks, u)
	}
	if st == nil || st.SeenAt.IsZero() {
		return out
	}
	out.SeenAt, out.Version, out.Started = st.SeenAt.UTC(), st.Version, st.Started
	out.Revision, out.InSync, out.Flows = st.Revision, st.Revision >= newest, st.Flows
	silent := now.Sub(st.SeenAt) > silentAfter
	for i := range st.Paths {
		state := st.Paths[i].State
		if silent {
			state = stateUnknown
		}
		out.Paths.count(state)
	}
	out.Status, out.Reason = siteStatus(out.Paths, silent, st)
	return out
}

func siteStatus(p PathCounts, silent bool, st *SiteState) (status, reason string) {
	switch {
	case silent:
		return stateDown, "it has been silent since " + st.SeenAt.UTC().Format(time.RFC3339)
	case p.Total > 0 && p.Down == p.Total:
		return stateDegraded, "all of its paths are down"
	case p.Down > 0:
		return stateDegraded, "a path is down"
	case p.Degraded > 0:
		return stateDegraded, "a path is degraded"
	case st.Failed != "":
		return stateDegraded, "it refused a revision: " + st.Failed
	}
	return stateUp, ""
}

// pathShapes are the paths of a site's own side.
func pathShapes(site string, st *SiteState, now time.Time) []Path {
	if st == nil {
		return nil
	}
	silent := now.Sub(st.SeenAt) > silentAfter
	list := make([]Path, 0, len(st.Paths))
	for i := range st.Paths {
		p := &st.Paths[i]
		ends, err := path.ParseID(string(p.ID))
		if err != nil || ends.LocalSite != site {
			continue // not a path of this site: nobody else's word counts for it
		}
		out := Path{
			ID: p.ID, Source: Ref{ends.LocalSite, ends.LocalSite}, Destination: Ref{ends.RemoteSite, ends.RemoteSite},
			Uplink: ends.LocalUplink, RemoteUplink: ends.RemoteUplink, Status: p.State, Reason: p.Why, Since: p.Since,
			ObservedAt: st.SeenAt.UTC(), HandshakeAt: p.HandshakeAt, Endpoint: p.Endpoint, MTU: p.MTU, Metrics: p.Metrics,
			Scores: p.Scores, TxBytes: p.TxBytes, RxBytes: p.RxBytes,
		}
		if out.Scores == nil {
			out.Scores = map[string]path.Score{}
		}
		if silent {
			out.Status, out.Reason = stateUnknown, "its site is silent"
		}
		list = append(list, out)
	}
	return list
}

// policyShape makes a policy of its configuration. rules may be nil.
func policyShape(c configs.Policy) (Policy, error) {
	o, err := policy.ParsePolicy([]byte(c.Spec), "spec")
	if err != nil {
		return Policy{}, err
	}
	p := Policy{
		ID: policyID(o.Namespace(), o.Name()), Kind: o.Kind(), Namespace: o.Namespace(), Name: o.Name(),
		Mode: cmp.Or(c.Mode, configs.PolicyEnforced), Answer: cmp.Or(c.Answer, configs.AnswerDrop), Spec: c.Spec, Types: []string{},
	}
	p.Enabled = p.Mode != configs.PolicyDisabled
	if o.Network != nil {
		for _, t := range o.Network.Spec.PolicyTypes {
			p.Types = append(p.Types, string(t))
		}
		return p, nil
	}
	if len(o.Cluster.Spec.Ingress) > 0 {
		p.Types = append(p.Types, "Ingress")
	}
	if len(o.Cluster.Spec.Egress) > 0 {
		p.Types = append(p.Types, "Egress")
	}
	return p, nil
}
