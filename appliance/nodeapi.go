package appliance

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"patronus/appliance/store"
	"patronus/configs"
	"patronus/dashboard/collect"
)

// The node's interface is HTTP/1.1 with JSON over a unix socket that only the
// node's own user and root may use, or over any listener in the lab:
//
//	GET  /v1/node      NodeStatus
//	GET  /v1/role      RoleStatus
//	POST /v1/role      a signed statement about the dashboard role; 204
//	GET  /v1/controller  the public key that this node signs revisions with
//	POST /v1/controller  the root's certificate of that key; 204
//	GET  /v1/survey    []Reach: what history the sites have
//	GET  /v1/collect   collect.Report, or 404 if this is no dashboard

// ErrNode is what the node answers when it refuses a request; its text says why.
var ErrNode = errors.New("node refused")

func nodeDir(dataDir string) string { return filepath.Join(dataDir, "node") }

// NodeSocket is where the node listens, below a data directory.
func NodeSocket(dataDir string) string { return filepath.Join(nodeDir(dataDir), "node.sock") }

// NodeStatus is what a node says of itself.
type NodeStatus struct {
	Site      string     `json:"site,omitempty"`
	History   StoreState `json:"history"`
	Dashboard StoreState `json:"dashboard"`
	// TicksDropped are those that the store did not take in time.
	TicksDropped uint64 `json:"ticks_dropped"`
	// DashboardAskedAt is when a dashboard asked this site last, over the overlay;
	// zero: not since the node started.
	DashboardAskedAt time.Time  `json:"dashboard_asked_at,omitzero"`
	Role             RoleStatus `json:"role"`
	// Exports are the engines that history is streamed to from here.
	Exports []ExportState `json:"exports,omitempty"`
}

// StoreState is one of the node's stores.
type StoreState struct {
	Open  bool        `json:"open"`
	Err   string      `json:"error,omitempty"` // why it is not open
	Node  string      `json:"node,omitempty"`
	Epoch uint64      `json:"epoch,omitempty"`
	Head  uint64      `json:"head,omitempty"`
	Stats store.Stats `json:"stats"`
}

// The roles of an appliance.
const (
	RoleNone      = "none"
	RoleStandby   = "standby"   // collects, commits nothing
	RoleDashboard = "dashboard" // holds the newest term
)

// RoleStatus is what a node knows of the dashboard role.
type RoleStatus struct {
	Fabric string `json:"fabric"`
	Site   string `json:"site"`
	Role   string `json:"role"`
	// Holder has the newest term; empty if nobody has.
	Holder  string         `json:"holder,omitempty"`
	Term    uint64         `json:"term,omitempty"`
	Highest uint64         `json:"highest_term"`
	Terms   []configs.Term `json:"terms,omitempty"`
}

// Next is the term of the next statement. The first one is 2: what standalone
// sites sign for themselves is of term 1.
func (r *RoleStatus) Next() uint64 { return max(r.Highest, 1) + 1 }

// Status is a picture of the node.
func (n *Node) Status() NodeStatus {
	st := NodeStatus{History: n.history.status(), Dashboard: n.dashboard.status(), TicksDropped: n.dropped.Load()}
	st.Role, _ = n.RoleStatus()
	st.Site, st.Exports = st.Role.Site, n.outlets.states()
	if at := n.asked.Load(); at != 0 {
		st.DashboardAskedAt = time.UnixMilli(at).UTC()
	}
	return st
}

func (s *shelf) status() StoreState {
	st, err := s.state()
	var out StoreState
	if err != nil {
		out.Err = err.Error()
	}
	if st != nil {
		out.Open, out.Head, out.Stats = true, st.Head(), st.Stats()
		out.Node, out.Epoch = st.Identity()
	}
	return out
}

// errStarting is told while the edge has not answered yet.
var errStarting = errors.New("the edge has not told yet which fabric this is")

// RoleStatus is what this node knows of the role.
func (n *Node) RoleStatus() (RoleStatus, error) {
	v, roles := n.fabric.Load(), n.roles.Load()
	if v == nil || roles == nil {
		return RoleStatus{Role: RoleNone}, errStarting
	}
	st := RoleStatus{
		Fabric: v.running.Fabric, Site: v.running.Site, Role: RoleNone, Highest: roles.Highest(), Terms: roles.Terms(),
	}
	st.Holder, st.Term, _ = roles.Holder()
	switch {
	case st.Holder == st.Site:
		st.Role = RoleDashboard
	case roles.Dashboard(st.Site):
		st.Role = RoleStandby
	}
	return st, nil
}

// Progress is how complete the history of the fabric is here; ok is false if
// this node is no dashboard, or its store is not open.
func (n *Node) Progress() (r collect.Report, ok bool) {
	f := n.fleet.Load()
	if f == nil {
		return collect.Report{}, false
	}
	return f.Report(), true
}

// control answers on l until ctx ends.
func (n *Node) control(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/node", answer(func(*http.Request) (any, error) { return n.Status(), nil }))
	mux.HandleFunc("GET /v1/role", answer(func(*http.Request) (any, error) { return n.RoleStatus() }))
	mux.HandleFunc("POST /v1/role", answer(func(r *http.Request) (any, error) {
		signed, err := io.ReadAll(io.LimitReader(r.Body, 4096))
		if err != nil {
			return nil, err
		}
		return nil, n.Declare(signed)
	}))
	mux.HandleFunc("GET /v1/controller", answer(func(*http.Request) (any, error) { return n.controllerKey() }))
	mux.HandleFunc("POST /v1/controller", answer(func(r *http.Request) (any, error) {
		certificate, err := io.ReadAll(io.LimitReader(r.Body, 4096))
		if err != nil {
			return nil, err
		}
		return nil, n.certify(certificate)
	}))
	mux.HandleFunc("GET /v1/survey", answer(func(r *http.Request) (any, error) { return n.Survey(r.Context()) }))
	mux.HandleFunc("GET /v1/collect", answer(func(*http.Request) (any, error) {
		report, ok := n.Progress()
		if !ok {
			return nil, errNotFound
		}
		return report, nil
	}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() {
		// An error is one of closing what is gone anyway.
		_ = server.Close()
	})
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// NodeClient asks a node. It is safe for concurrent use.
type NodeClient struct{ caller }

// NewNodeClient asks the node that listens on a unix socket.
func NewNodeClient(socket string) *NodeClient { return NewNodeClientFunc(dialUnix(socket)) }

// NewNodeClientFunc asks the node at the other end of what dial returns.
func NewNodeClientFunc(dial func(ctx context.Context) (net.Conn, error)) *NodeClient {
	return &NodeClient{newCaller("node", ErrNode, dial)}
}

// Status is the node's state.
func (c *NodeClient) Status(ctx context.Context) (*NodeStatus, error) {
	var s NodeStatus
	return &s, c.do(ctx, http.MethodGet, "/v1/node", nil, &s)
}

// Role is what the node knows of the dashboard role.
func (c *NodeClient) Role(ctx context.Context) (*RoleStatus, error) {
	var s RoleStatus
	return &s, c.do(ctx, http.MethodGet, "/v1/role", nil, &s)
}

// Declare gives the node a signed statement about the dashboard role.
func (c *NodeClient) Declare(ctx context.Context, signed []byte) error {
	return c.do(ctx, http.MethodPost, "/v1/role", signed, nil)
}

// Survey asks all sites, through the node, what history they have.
func (c *NodeClient) Survey(ctx context.Context) ([]Reach, error) {
	var r []Reach
	return r, c.do(ctx, http.MethodGet, "/v1/survey", nil, &r)
}

// Progress is how complete the history of the fabric is at a dashboard.
func (c *NodeClient) Progress(ctx context.Context) (*collect.Report, error) {
	var r collect.Report
	return &r, c.do(ctx, http.MethodGet, "/v1/collect", nil, &r)
}
