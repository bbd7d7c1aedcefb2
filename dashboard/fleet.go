package dashboard

import (
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"time"

	"patronus/dashboard/auth"
	"patronus/dashboard/control"
	"patronus/netstack/flow"
	"patronus/netstack/path"
)

// Plane keeps the configuration; *control.Plane is one.
type Plane interface {
	Current() *control.State
	At(t time.Time) (*control.State, error)
	Commit(ctx context.Context, by auth.Actor, ch control.Change) (control.Revision, error)
	Revisions() []control.Revision
}

// States is what sites last said of themselves.
type States interface {
	// States are the newest states by site, and a number that differs whenever
	// they do. Both are immutable; it is called for each request.
	States() (states map[string]*SiteState, version uint64)
}

// SiteState is what one site last said of itself.
type SiteState struct {
	SeenAt time.Time // newest proof of life; the zero time is never
	// Revision is the one that the site has applied; Failed says why it has not
	// applied a newer one.
	Revision uint64
	Failed   string
	Version  string // of its software
	Started  time.Time
	Overlay  netip.Addr
	Uplinks  []UplinkState
	Paths    []PathState
	Flows    int // live
	Policies []PolicyCount
}

// UplinkState is one uplink as its own site sees it.
type UplinkState struct {
	Name    string `json:"name"`
	Carrier bool   `json:"carrier"`
}

// PathState is one path as the site at its local end sees it.
type PathState struct {
	ID          path.ID
	State       string // up, degraded, down, unknown
	Why         string
	Since       time.Time
	Endpoint    string
	MTU         int
	HandshakeAt time.Time
	Metrics     path.Metrics
	Scores      map[string]path.Score // by class
	TxBytes     uint64
	RxBytes     uint64
}

// PolicyCount is what one policy decided at one site since the site has had it.
type PolicyCount struct {
	Policy                  string // Kind/namespace/name
	Allowed, Denied, Staged uint64 // flows
}

// Sites asks sites to do something; each answers [ErrUnreachable] for a site
// that does not, and [ErrNotFound] for what a site does not have.
type Sites interface {
	// Explain says what a site would do with a packet, and why: the JSON of
	// netstack.Explanation.
	Explain(ctx context.Context, site string, q Question) (json.RawMessage, error)
	// Reevaluate makes the next packet of a flow be judged anew.
	Reevaluate(ctx context.Context, site, key string) error
	// TestPath measures a path from its local end.
	TestPath(ctx context.Context, id path.ID, o TestOptions) (TestResult, error)
}

// Question is a packet that somebody wonders about.
type Question struct {
	From     netip.Addr `json:"from"`
	To       netip.Addr `json:"to"`
	Port     uint16     `json:"port,omitempty"`
	Protocol string     `json:"protocol,omitempty"`
	DSCP     uint8      `json:"dscp,omitempty"`
	// At asks about the past; the zero time is now.
	At time.Time `json:"at,omitzero"`
}

// TestOptions say how to measure a path.
type TestOptions struct {
	// Throughput asks for a transfer in both directions, beside probes.
	Throughput bool `json:"throughput,omitempty"`
	// Seconds of the transfer, 1 to 10; default 3.
	Seconds int `json:"seconds,omitempty"`
	// MaxMbps caps its rate; default 100.
	MaxMbps int `json:"max_mbps,omitempty"`
}

// TestResult is what was measured of a path; nil is what was not.
type TestResult struct {
	Path      path.ID   `json:"path_id"`
	At        time.Time `json:"at"`
	Sent      int       `json:"sent"`
	Received  int       `json:"received"`
	LossPct   float64   `json:"packet_loss_pct"`
	MinMs     *float64  `json:"min_ms"`
	MedianMs  *float64  `json:"median_ms"`
	MaxMs     *float64  `json:"max_ms"`
	TxMbps    *float64  `json:"tx_mbps,omitempty"`
	RxMbps    *float64  `json:"rx_mbps,omitempty"`
	CappedBy  string    `json:"capped_by,omitempty"`
	BytesSent uint64    `json:"bytes_sent,omitempty"`
}

// History is what was recorded.
type History interface {
	// Points are the values of a metric over time, a series for each path that
	// the query has.
	Points(ctx context.Context, q PointQuery) ([]Series, error)
	// Flows are a page of flows, the newest first, and the cursor of the next
	// page, "" at the end.
	Flows(ctx context.Context, q FlowQuery) ([]Flow, string, error)
	// Flow is the newest record of a flow, by the name that package flow gives it.
	Flow(ctx context.Context, site, key string, at time.Time) (Flow, error)
	// StatesAt are the states of sites as they were at a time.
	StatesAt(ctx context.Context, at time.Time) (map[string]*SiteState, error)
	// Blocked counts the flows that each policy (Kind/namespace/name) has denied
	// since a time.
	Blocked(ctx context.Context, since time.Time) (map[string]uint64, error)
	// FlowStats sums flows up, with the sources that sent most.
	FlowStats(ctx context.Context, from, to time.Time, top int, sees func(site string) bool) (FlowStats, error)
}

// FlowStats are flows in a few numbers.
type FlowStats struct {
	Total, Blocked, Bytes uint64
	Talkers               []Talker // most bytes first
}

// Talker is a source of flows.
type Talker struct {
	Source       netip.Addr
	Bytes, Flows uint64
}

// PointQuery asks for points; the zero value of a field is any.
type PointQuery struct {
	Metric   string // latency_ms, jitter_ms, packet_loss_pct, bandwidth_mbps, score, ...
	Site     string
	Path     path.ID
	From, To time.Time
	Step     time.Duration
	// Sees tells which sites' series the asker may see.
	Sees func(site string) bool
}

// Series is a metric of one path over time.
type Series struct {
	Site   string  `json:"site"`
	Path   path.ID `json:"path_id"`
	Points []Point `json:"points"`
}

// Point is a metric over one step. Count 0 has no values.
type Point struct {
	At    time.Time  `json:"at"`
	Min   path.Value `json:"min"`
	Mean  path.Value `json:"mean"`
	Max   path.Value `json:"max"`
	P95   path.Value `json:"p95"`
	Count int        `json:"count"`
}

// FlowQuery asks for flows; the zero value of a field is any.
type FlowQuery struct {
	Site     string
	Src, Dst netip.Prefix
	Port     uint16
	Protocol string
	Path     path.ID
	Policy   string // Kind/namespace/name
	Status   string // active, blocked or ended
	Text     string // anywhere in addresses, policy and path
	From, To time.Time
	Cursor   string
	Limit    int
	Sees     func(site string) bool
}

// Flow is one conversation as one site saw it.
type Flow struct {
	Key      string       `json:"flow_key"`
	Site     string       `json:"site"`
	Src      netip.Addr   `json:"src"`
	Dst      netip.Addr   `json:"dst"`
	SrcPort  uint16       `json:"src_port"`
	Port     uint16       `json:"port"`
	Protocol string       `json:"protocol"`
	State    string       `json:"state,omitempty"`
	Status   string       `json:"status"`
	Class    string       `json:"class"`
	Path     path.ID      `json:"path_id,omitempty"`
	Policy   string       `json:"policy,omitempty"` // Kind/namespace/name
	Packets  uint64       `json:"packets"`
	Bytes    uint64       `json:"bytes"`
	Reverse  flow.Counts  `json:"reverse"`
	Created  time.Time    `json:"created_at"`
	Seen     time.Time    `json:"seen_at"`
	Decision *flow.Record `json:"decision,omitempty"`
}

// Events is the log of what happened.
type Events interface {
	// Events are a page of events, the newest first, and the cursor of the next
	// page, "" at the end.
	Events(ctx context.Context, q EventQuery) ([]Event, string, error)
	// Event is one event, or [ErrNotFound].
	Event(ctx context.Context, id string) (Event, error)
	// Acknowledge marks an event as seen by somebody, once; it returns the event.
	Acknowledge(ctx context.Context, id, by string, at time.Time) (Event, error)
}

// EventQuery asks for events; the zero value of a field is any.
type EventQuery struct {
	Type, Severity, Site, Source string
	Acknowledged                 *bool
	From, To                     time.Time
	Cursor                       string
	Limit                        int
	Sees                         func(site string) bool
}

// Event is something that happened.
type Event struct {
	ID             string          `json:"id"`
	At             time.Time       `json:"timestamp"`
	Type           string          `json:"event_type"`
	Severity       string          `json:"severity"`
	Site           string          `json:"site_id,omitempty"`
	Source         string          `json:"source_id,omitempty"`
	Data           json.RawMessage `json:"data,omitempty"`
	Acknowledged   bool            `json:"acknowledged"`
	AcknowledgedAt time.Time       `json:"acknowledged_at,omitzero"`
	AcknowledgedBy string          `json:"acknowledged_by,omitempty"`
}

// Nodes are the appliances with their roles.
type Nodes interface {
	Nodes(ctx context.Context) ([]Node, error)
	// Promote gives an appliance the dashboard role, Demote takes it.
	Promote(ctx context.Context, by auth.Actor, site string) (Node, error)
	Demote(ctx context.Context, by auth.Actor, site string) (Node, error)
}

// Node is one appliance.
type Node struct {
	ID      string    `json:"id"`
	Site    string    `json:"site"`
	Role    string    `json:"role"` // edge or dashboard
	Term    uint64    `json:"term,omitempty"`
	Version string    `json:"version,omitempty"`
	SeenAt  time.Time `json:"seen_at,omitzero"`
	Self    bool      `json:"self"`
}

// Captures takes packets off an appliance.
type Captures interface {
	// Capture writes pcapng to w until a cap is reached or ctx ends.
	Capture(ctx context.Context, o CaptureOptions, w io.Writer) error
}

// CaptureOptions say what to capture, with the caps that end it.
type CaptureOptions struct {
	Site     string `json:"site"`
	Point    string `json:"point"`            // lan, wan or an uplink's name
	Filter   string `json:"filter,omitempty"` // host, net, port and protocol terms joined by "and"
	Seconds  int    `json:"seconds"`
	Packets  int    `json:"packets"`
	Bytes    int    `json:"bytes"`
	SnapSize int    `json:"snap_size,omitempty"`
}
