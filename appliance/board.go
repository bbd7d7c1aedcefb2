package appliance

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"patronus/appliance/console"
	"patronus/appliance/ledger"
	"patronus/appliance/metrics"
	"patronus/configs"
	"patronus/dashboard"
	"patronus/dashboard/auth"
	"patronus/dashboard/control"
	"patronus/dashboard/live"
	"patronus/dashboard/web"
)

// BoardOptions are what an appliance's dashboard is made of.
type BoardOptions struct {
	// Dir is where the ledger, the certificate and the controller's key are.
	Dir string
	// Listen are the addresses for browsers and scripts; their port is the same
	// on the overlay address, where the dashboard is as well.
	Listen []string
	// Hosts are the names it is called by, beside addresses.
	Hosts []string
	// Started is told the addresses that are listened on, and the first user's
	// setup code if there is no user yet; nil: they are logged.
	Started func(BoardInfo)
	Logger  *slog.Logger
}

// BoardInfo is what a person needs to open the dashboard for the first time.
type BoardInfo struct {
	Addresses   []netip.AddrPort
	Fingerprint string // of the certificate, SHA-256
	SetupCode   string // "" if there are users
	SetupUntil  time.Time
}

// DefaultListen is where a dashboard listens if nothing else is said.
const DefaultListen = ":8443"

func ledgerDir(nodeDir string) string { return filepath.Join(nodeDir, "ledger") }

// LedgerDir is where a dashboard's accounts, revisions and audit log are, below
// a data directory.
func LedgerDir(dataDir string) string { return ledgerDir(nodeDir(dataDir)) }

// Board is the dashboard of an appliance, for as long as it has the role.
type Board struct {
	o   BoardOptions
	log *slog.Logger
}

// NewBoard builds a board. Its Run is what [NodeOptions.Dashboard] wants.
func NewBoard(o BoardOptions) *Board {
	if len(o.Listen) == 0 {
		o.Listen = []string{DefaultListen}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	b := &Board{o: o, log: o.Logger}
	if o.Started == nil {
		b.o.Started = b.announce
	}
	return b
}

// announce logs what a person needs. The setup code is for the console, and
// worth nothing once it was used or has expired.
func (b *Board) announce(i BoardInfo) {
	b.log.Info("dashboard", "addr", i.Addresses)
	fmt.Fprintf(os.Stderr, "dashboard certificate, SHA-256: %s\n", i.Fingerprint)
	if i.SetupCode != "" {
		fmt.Fprintf(os.Stderr, "dashboard setup code, until %s: %s\n", i.SetupUntil.Format(time.TimeOnly), i.SetupCode)
	}
}

// Run serves the dashboard until ctx ends.
func (b *Board) Run(ctx context.Context, role *DashboardRole) error {
	l, err := ledger.Open(ledgerDir(b.o.Dir))
	if err != nil {
		return err
	}
	err = b.run(ctx, role, l)
	return errors.Join(err, l.Close())
}

func (b *Board) run(ctx context.Context, role *DashboardRole, l *ledger.Ledger) error {
	running, err := role.Edge.Configuration(ctx)
	if err != nil {
		return err
	}
	plane, err := control.Open(ctx, l, configs.FromConfig(running), time.Now)
	if err != nil {
		return err
	}
	directory, err := auth.Open(l, auth.Options{})
	if err != nil {
		return err
	}
	self := running.Site
	far := newFarEdges(role, self)
	defer far.close()
	distributor := control.NewDistributor(control.DistributorOptions{
		Plane: plane, Ledger: l, Signer: &controllerPen{dir: b.o.Dir, fabric: running.Fabric, self: self, roles: role.Roles},
		Self: self, Reach: func(site string) control.Site { return far.edge(site) }, Log: b.log,
	})
	hub := live.NewHub()
	con := console.New(console.Options{
		Store: role.Store, Plane: plane, Hub: hub, Log: b.log,
		Edge: func(site string) console.Edge { return far.edge(site) },
		Applied: func(site string) (uint64, string) {
			p := distributor.Progress()[site]
			return p.Revision, p.Failed
		},
		Version: role.Fleet.Version,
	})
	keeper, err := b.alerts(ctx, l, plane, con, self)
	if err != nil {
		return err
	}
	certificate, err := dashboard.SelfSigned(b.o.Dir, b.o.Hosts, time.Now())
	if err != nil {
		return err
	}
	enroller := control.NewEnroller(control.EnrollerOptions{
		Plane: plane, Ledger: l, Distributor: distributor, Root: role.Node.fabric.Load().running.SigningKey, Certificate: certificate.Digest,
	})
	registry := prometheus.NewRegistry()
	if err := registry.Register(metrics.NewCollector(role.Edge, Version, metrics.Limits{})); err != nil {
		return fmt.Errorf("dashboard: %w", err)
	}
	if err := registry.Register(&role.Node.outlets); err != nil {
		return fmt.Errorf("dashboard: %w", err)
	}
	pages, err := web.Open()
	if err != nil {
		// The API is of use without it.
		b.log.Warn("no pages for browsers", "err", err)
	}
	server, err := dashboard.New(dashboard.Options{
		Directory: directory, Ledger: l, Plane: plane, States: con, Sites: con, History: con, Events: con, Captures: con, Enroller: enroller, Alerts: keeper,
		Nodes: &boardNodes{role: role, self: self}, Hub: hub, Registry: registry,
		Pages: pages, Hosts: b.o.Hosts, Version: Version, Log: b.log,
	})
	if err != nil {
		return err
	}
	listeners, err := b.listen()
	if err != nil {
		return err
	}
	info := BoardInfo{Fingerprint: certificate.Fingerprint()}
	conductor := control.NewConductor(control.ConductorOptions{Plane: plane, Progress: distributor.Progress, Health: func() control.Health { return healthOf(con) }, Log: b.log})
	tasks := []Task{l, distributor, conductor, con, keeper.Keeper}
	var port uint16
	for _, at := range listeners {
		a := at.Addr().(*net.TCPAddr).AddrPort()
		port = a.Port()
		info.Addresses = append(info.Addresses, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
		tasks = append(tasks, task{"pages " + a.String(), func(ctx context.Context) error {
			return server.Serve(ctx, tls.NewListener(at, certificate.TLS()))
		}})
	}
	overlay := listenOverlay(ctx, role.Edge, port)
	defer overlay.Close()
	tasks = append(tasks, task{"pages on the overlay", func(ctx context.Context) error {
		return server.Serve(ctx, tls.NewListener(overlay, certificate.TLS()))
	}})
	if code, until, ok := directory.SetupCode(); ok {
		info.SetupCode, info.SetupUntil = code, until
	}
	b.o.Started(info)
	return runTasks(ctx, tasks...)
}

// listen opens all addresses, or none.
func (b *Board) listen() ([]net.Listener, error) {
	var all []net.Listener
	for _, at := range b.o.Listen {
		l, err := net.Listen("tcp", at)
		if err != nil {
			for _, open := range all {
				open.Close()
			}
			return nil, fmt.Errorf("dashboard: %w", err)
		}
		all = append(all, l)
	}
	return all, nil
}

// farEdges are the ways to the edges of the fabric: the own one directly, the
// others over the overlay.
type farEdges struct {
	role *DashboardRole
	self string

	mu  sync.Mutex
	all map[string]*EdgeClient
}

func newFarEdges(role *DashboardRole, self string) *farEdges {
	return &farEdges{role: role, self: self, all: map[string]*EdgeClient{}}
}

func (f *farEdges) edge(site string) *EdgeClient {
	if site == f.self {
		return f.role.Edge
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.all[site]
	if c == nil {
		c = NewEdgeClientFunc(func(ctx context.Context) (net.Conn, error) { return f.role.Node.DialPort(ctx, site, RemotePort) })
		f.all[site] = c
	}
	return c
}

func (f *farEdges) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.all {
		c.Close()
	}
}

// The controller's key and certificate, in the node's directory: the key is
// made here and never leaves, the certificate is the root's.
func controllerKeyFile(dir string) string  { return filepath.Join(dir, "controller.key") }
func controllerCertFile(dir string) string { return filepath.Join(dir, "controller.cert") }

// controllerPen signs as the controller that the root certified for the term
// that this site holds.
type controllerPen struct {
	dir, fabric, self string
	roles             *Roles

	mu   sync.Mutex
	key  *configs.RootKey
	cert []byte
	term uint64 // of cert
}

// errNotCertified is for a dashboard whose root has not certified it.
var errNotCertified = errors.New("this dashboard has no certificate for its term: patronus promote makes it")

// Term implements control.Signer.
func (p *controllerPen) Term() (uint64, error) {
	site, term, ok := p.roles.Holder()
	if !ok || site != p.self {
		return 0, ErrFenced
	}
	if err := p.load(term); err != nil {
		return 0, err
	}
	return term, nil
}

// load reads the certificate of a term.
func (p *controllerPen) load(term uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cert != nil && p.term == term {
		return nil
	}
	key, err := configs.LoadRootKey(controllerKeyFile(p.dir))
	if errors.Is(err, fs.ErrNotExist) {
		return errNotCertified
	}
	if err != nil {
		return err
	}
	cert, err := os.ReadFile(controllerCertFile(p.dir))
	if errors.Is(err, fs.ErrNotExist) {
		return errNotCertified
	}
	if err != nil {
		return fmt.Errorf("controller certificate: %w", err)
	}
	c, err := configs.ReadController(cert)
	if err != nil {
		return fmt.Errorf("controller certificate: %w", err)
	}
	if c.Term != term || c.Fabric != p.fabric || !c.Key.Equal(key.Public()) {
		return errNotCertified
	}
	p.key, p.cert, p.term = key, cert, term
	return nil
}

// Sign implements control.Signer.
func (p *controllerPen) Sign(r *configs.Revision) ([]byte, error) {
	if err := p.load(r.Epoch); err != nil {
		return nil, err
	}
	p.mu.Lock()
	key, cert := p.key, p.cert
	p.mu.Unlock()
	return r.SignDelegated(key, cert)
}

// boardNodes are the appliances with their roles. It implements
// dashboard.Nodes.
type boardNodes struct {
	role *DashboardRole
	self string
}

// Nodes implements dashboard.Nodes.
func (n *boardNodes) Nodes(ctx context.Context) ([]dashboard.Node, error) {
	reach, err := n.role.Node.Survey(ctx)
	if err != nil {
		return nil, err
	}
	holder, term, _ := n.role.Roles.Holder()
	out := make([]dashboard.Node, len(reach))
	for i, r := range reach {
		out[i] = dashboard.Node{ID: r.Site, Site: r.Site, Role: "edge", Version: r.Version, Self: r.Site == n.self}
		if r.Err == "" {
			out[i].SeenAt = time.Now().UTC()
		}
		switch {
		case r.Site == holder:
			out[i].Role, out[i].Term = RoleDashboard, term
		case n.role.Roles.Dashboard(r.Site):
			out[i].Role = RoleStandby
		}
	}
	return out, nil
}

// errRootNeeded: what only the holder of a root key can do.
var errRootNeeded = fmt.Errorf("a promotion is signed by the appliance's own root key, which no dashboard has: run patronus promote, or patronus demote, there: %w", dashboard.ErrUnavailable)

// Promote implements dashboard.Nodes.
func (n *boardNodes) Promote(context.Context, auth.Actor, string) (dashboard.Node, error) {
	return dashboard.Node{}, errRootNeeded
}

// Demote implements dashboard.Nodes.
func (n *boardNodes) Demote(context.Context, auth.Actor, string) (dashboard.Node, error) {
	return dashboard.Node{}, errRootNeeded
}

// Promote makes the appliance of a node a dashboard, or demotes it, with its
// root key: it signs the statement for the next term and, for a promotion, the
// controller's certificate of that term. It returns the term.
func Promote(ctx context.Context, c *NodeClient, root *configs.RootKey, promoted bool) (uint64, error) {
	role, err := c.Role(ctx)
	if err != nil {
		return 0, err
	}
	now := time.Now().UTC()
	t := configs.Term{
		Fabric: role.Fabric, Site: role.Site, By: role.Site, Number: role.Next(), Dashboard: promoted, IssuedAt: now,
	}
	signed, err := t.Sign(root)
	if err != nil {
		return 0, err
	}
	if promoted {
		key, err := c.ControllerKey(ctx)
		if err != nil {
			return 0, err
		}
		certificate, err := root.Certify(configs.Controller{Fabric: role.Fabric, Site: role.Site, Term: t.Number, Key: key, IssuedAt: now})
		if err != nil {
			return 0, err
		}
		if err := c.Certify(ctx, certificate); err != nil {
			return 0, err
		}
	}
	return t.Number, c.Declare(ctx, signed)
}

// ControllerKey is the public half of the key that the node signs revisions
// with; it is made at the first call.
func (c *NodeClient) ControllerKey(ctx context.Context) (ed25519.PublicKey, error) {
	var key ed25519.PublicKey
	err := c.do(ctx, "GET", "/v1/controller", nil, &key)
	return key, err
}

// Certify gives the node the certificate of its controller's key.
func (c *NodeClient) Certify(ctx context.Context, certificate []byte) error {
	return c.do(ctx, "POST", "/v1/controller", certificate, nil)
}

// controllerKey makes the key if there is none.
func (n *Node) controllerKey() (ed25519.PublicKey, error) {
	if n.o.Dir == "" {
		return nil, errors.New("this node keeps nothing")
	}
	key, _, err := configs.LoadOrCreateRootKey(controllerKeyFile(n.o.Dir))
	if err != nil {
		return nil, err
	}
	return key.Public(), nil
}

// certify keeps the certificate of the controller's key.
func (n *Node) certify(certificate []byte) error {
	key, err := n.controllerKey()
	if err != nil {
		return err
	}
	c, err := configs.ReadController(certificate)
	if err != nil {
		return err
	}
	if !c.Key.Equal(key) {
		return fmt.Errorf("the certificate is for another key: %w", configs.ErrCertificate)
	}
	return configs.ReplaceFile(controllerCertFile(n.o.Dir), certificate)
}
