package appliance

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"patronus/configs"
	"patronus/netstack"
)

// Edge owns packets and keys: the engine, the last good revisions in plain
// files, and the interface that the node and the CLI use.
type Edge struct {
	engine    *netstack.Engine
	store     *configs.Store // nil in the lab, which keeps nothing
	log       *slog.Logger
	telemetry *telemetry
	listeners listeners
	// roots reads the keys that revisions are verified by; nil keeps the store's.
	roots func() ([]ed25519.PublicKey, error)
	// prepare is called before a configuration is applied, with what the
	// machine must know of it (kernel routes into a tun port).
	prepare func(*configs.Config) error

	confirmWithin time.Duration
	ended         chan struct{} // closed when Run ends

	boot    string // names this run of the edge
	signing ed25519.PublicKey

	mu      sync.Mutex      // serialises Apply; guards config
	config  *configs.Config // the running one
	current atomic.Pointer[Running]
}

// Running is the configuration that an edge runs, and the public half of the
// key that this appliance signs with.
type Running struct {
	Fabric     string            `json:"fabric"`
	Site       string            `json:"site"`
	Revision   uint64            `json:"revision"`
	SigningKey ed25519.PublicKey `json:"signing_key,omitempty"`
	// Rejected is the newest revision that was tried and rolled back.
	Rejected *configs.Rejected `json:"rejected,omitempty"`
	Config   json.RawMessage   `json:"config"` // as configs.Decode reads it
}

// EdgeOptions are what an edge is made of.
type EdgeOptions struct {
	Opener  netstack.Opener
	Store   *configs.Store
	Logger  *slog.Logger
	Prepare func(*configs.Config) error
	// Roots reads the keys that revisions are verified by, before each; nil
	// keeps those that Store was opened with.
	Roots func() ([]ed25519.PublicKey, error)
	// SigningKey is what others know this appliance's signatures by.
	SigningKey ed25519.PublicKey
	Batch      int
	Flows      configs.Flows
	Elastic    bool // see netstack.Options
	// ConfirmWithin is how long a dashboard's revision may take until the site
	// has reached the dashboard through it; default [ConfirmWithin].
	ConfirmWithin time.Duration
}

// NewEdge builds an edge; it touches nothing yet.
func NewEdge(o EdgeOptions) (*Edge, error) {
	e := &Edge{
		store: o.Store, log: o.Logger, prepare: o.Prepare, roots: o.Roots, telemetry: newTelemetry(telemetryRing),
		boot: rand.Text(), signing: o.SigningKey, confirmWithin: cmp.Or(o.ConfirmWithin, ConfirmWithin), ended: make(chan struct{}),
	}
	engine, err := netstack.New(netstack.Options{Opener: o.Opener, Logger: o.Logger, Sink: e.telemetry.put, BatchSize: o.Batch, Flows: o.Flows, Elastic: o.Elastic})
	if err != nil {
		return nil, err
	}
	e.engine = engine
	return e, nil
}

// Engine is the data plane, for the lab and the tests.
func (e *Edge) Engine() *netstack.Engine { return e.engine }

// Apply verifies a signed revision, makes it the running configuration, and
// keeps it. If any step fails the running one stays. One that a dashboard has
// sent must first prove itself: see try. A ctx that ends before its turn has
// come leaves all as it is; later it has no effect.
func (e *Edge) Apply(ctx context.Context, signed []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if e.store == nil {
		return errors.New("this edge keeps no revisions")
	}
	if e.roots != nil {
		// The site may have joined another fabric since.
		roots, err := e.roots()
		if err != nil {
			return err
		}
		e.store.Trust(roots...)
	}
	rev, err := e.store.Check(signed)
	if err != nil {
		return err
	}
	cfg, err := rev.Config()
	if err != nil {
		return err
	}
	if rev.Controller != nil && e.config != nil {
		if err := configs.GuardRails(e.config, cfg); err != nil {
			return err
		}
		// The dashboard's own site is not on trial: who is there can always mend it.
		current := e.store.Current()
		if (current == nil || current.Hash() != rev.Hash()) && rev.Controller.Site != cfg.Site {
			return e.try(rev, cfg, signed)
		}
	}
	if err := e.apply(rev.Number, cfg); err != nil {
		return err
	}
	_, err = e.store.Save(signed)
	return err
}

// Reload applies the newest good revision on disk.
func (e *Edge) Reload() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	rev := e.store.Current()
	if rev == nil {
		return netstack.ErrNoConfiguration
	}
	cfg, err := rev.Config()
	if err != nil {
		return err
	}
	return e.apply(rev.Number, cfg)
}

// ApplyConfig makes an unsigned configuration the running one: the lab's way.
func (e *Edge) ApplyConfig(number uint64, cfg *configs.Config) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.apply(number, cfg)
}

func (e *Edge) apply(number uint64, cfg *configs.Config) error {
	rules, err := compileRules(cfg)
	if err != nil {
		return fmt.Errorf("policies: %w", err)
	}
	if e.prepare != nil {
		if err := e.prepare(cfg); err != nil {
			return err
		}
	}
	body, err := cfg.Canonical()
	if err != nil {
		return err
	}
	if err := e.engine.Apply(number, cfg, rules); err != nil {
		return err
	}
	e.config = cfg
	r := &Running{Fabric: cfg.Fabric, Site: cfg.Site, Revision: number, SigningKey: e.signing, Config: body}
	if e.store != nil {
		r.Rejected = e.store.Rejected()
	}
	e.current.Store(r)
	return nil
}

func (e *Edge) running() (*Running, error) {
	r := e.current.Load()
	if r == nil {
		return nil, netstack.ErrNoConfiguration
	}
	return r, nil
}

// Run forwards packets and answers on l until ctx ends.
func (e *Edge) Run(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: e.routes(), ReadHeaderTimeout: 10 * time.Second}
	return runTasks(ctx,
		task{"engine", e.engine.Run},
		task{"edge api", func(ctx context.Context) error {
			stop := context.AfterFunc(ctx, func() {
				close(e.ended) // and with it the trial of a revision
				e.listeners.close()
				// Connections that were upgraded are not the server's any more.
				_ = server.Close()
			})
			defer stop()
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		}},
	)
}

// RunEdge is the edge child: its API socket is descriptor 3, the supervisor's
// broker descriptor 4.
func RunEdge(ctx context.Context, dataDir string, log *slog.Logger) error {
	// Nobody may read the keys out of our memory.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("edge: %w", err)
	}
	if err := shed(); err != nil {
		return fmt.Errorf("edge: %w", err)
	}
	l, err := inheritedListener(3)
	if err != nil {
		return err
	}
	defer l.Close()
	broker, err := inheritedBroker(4)
	if err != nil {
		return err
	}
	fabric, site, err := readIdentity(dataDir)
	if err != nil {
		return err
	}
	roots := func() ([]ed25519.PublicKey, error) { return trustedRoots(dataDir) }
	readable, err := readableRoots(dataDir)
	if err != nil {
		return err
	}
	store, damage, err := configs.OpenStore(edgeDir(dataDir), fabric, site, readable...)
	if err != nil {
		return err
	}
	if damage != nil {
		log.Warn("a kept revision is damaged", "site", site, "err", damage)
	}
	rev := store.Current()
	if rev == nil {
		return netstack.ErrNoConfiguration
	}
	cfg, err := rev.Config()
	if err != nil {
		return err
	}
	m := &machine{broker: broker}
	e, err := NewEdge(EdgeOptions{
		Opener: m, Store: store, Logger: log, Prepare: m.prepare, SigningKey: readable[0], Roots: roots, Flows: cfg.Flows,
		// Who sets GOMAXPROCS has decided.
		Elastic: os.Getenv("GOMAXPROCS") == "",
	})
	if err != nil {
		return err
	}
	if err := e.Reload(); err != nil {
		return err
	}
	return runTasks(ctx,
		task{"edge", func(ctx context.Context) error { return e.Run(ctx, l) }},
		task{"carrier", func(ctx context.Context) error { return watchCarrier(ctx, e.engine) }},
	)
}

func inheritedListener(fd uintptr) (net.Listener, error) {
	f := os.NewFile(fd, "edge socket")
	if f == nil {
		return nil, errors.New("the edge is started by patronus run, not by hand")
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("the edge is started by patronus run, not by hand: %w", err)
	}
	return l, nil
}

func inheritedBroker(fd uintptr) (*brokerClient, error) {
	f := os.NewFile(fd, "broker")
	if f == nil {
		return nil, errors.New("the edge is started by patronus run, not by hand")
	}
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, errors.New("broker: not a unix socket")
	}
	return &brokerClient{conn: unixConn}, nil
}
