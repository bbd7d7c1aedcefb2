package appliance

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
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

	mu      sync.Mutex // serialises Apply; guards what follows
	running *configs.Config
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
	Batch int
	Flows configs.Flows
}

// NewEdge builds an edge; it touches nothing yet.
func NewEdge(o EdgeOptions) (*Edge, error) {
	e := &Edge{store: o.Store, log: o.Logger, prepare: o.Prepare, roots: o.Roots, telemetry: newTelemetry(telemetryRing)}
	engine, err := netstack.New(netstack.Options{Opener: o.Opener, Logger: o.Logger, Sink: e.telemetry.put, BatchSize: o.Batch, Flows: o.Flows})
	if err != nil {
		return nil, err
	}
	e.engine = engine
	return e, nil
}

// Engine is the data plane, for the lab and the tests.
func (e *Edge) Engine() *netstack.Engine { return e.engine }

// Apply verifies a signed revision, makes it the running configuration, and
// keeps it. If any step fails the running one stays.
func (e *Edge) Apply(signed []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
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
	if rev.Controller != nil && e.running != nil {
		if err := configs.GuardRails(e.running, cfg); err != nil {
			return err
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
	if err := e.engine.Apply(number, cfg, rules); err != nil {
		return err
	}
	e.running = cfg
	return nil
}

// Configuration is the running one, nil before there is one.
func (e *Edge) Configuration() *configs.Config {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.running
}

// Run forwards packets and answers on l until ctx ends.
func (e *Edge) Run(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: e.routes(), ReadHeaderTimeout: 10 * time.Second}
	return runTasks(ctx,
		task{"engine", e.engine.Run},
		task{"edge api", func(ctx context.Context) error {
			stop := context.AfterFunc(ctx, func() {
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
	e, err := NewEdge(EdgeOptions{Opener: m, Store: store, Logger: log, Prepare: m.prepare, Flows: cfg.Flows, Roots: roots})
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
