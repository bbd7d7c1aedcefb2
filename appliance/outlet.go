package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"patronus/appliance/store"
	"patronus/configs"
	"patronus/dashboard/export"
	"patronus/dashboard/export/outbound"
	"patronus/dashboard/export/syslog"
)

// SecretsDir is where the files lie that an engine's configuration names, below
// a data directory.
func SecretsDir(dataDir string) string { return secretsDir(nodeDir(dataDir)) }

func secretsDir(nodeDir string) string { return filepath.Join(nodeDir, "secrets") }

// outlet streams what is new in a store to the engines of the configuration that
// runs. It is the store's [store.Forward]: a batch is in the durable queue before
// the store has it.
//
//	store.Append, store.Import --Put--> export.Exporter: queue --> engines
//	configuration --every 2 s--> the exporter is made anew when engines changed
//
// It is safe for concurrent use; Run is called once.
type outlet struct {
	from    configs.EngineFrom
	dir     string // of the queue
	secrets string
	engines func() configs.Export
	// active reports whether what is new now is ours to stream.
	active func() bool
	report export.Report
	log    *slog.Logger

	mu       sync.RWMutex // read while the exporter is in use
	exporter *export.Exporter
	since    int64
	err      error // why there is no exporter
}

// From implements store.Forward.
func (o *outlet) From() (int64, bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.since, o.exporter != nil && o.active()
}

// Put implements store.Forward. Of an appliance's own history only events go.
func (o *outlet) Put(ctx context.Context, b store.Batch) error {
	if o.from == configs.FromAppliance {
		b.Samples, b.Flows = nil, nil
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.exporter == nil {
		return nil
	}
	return o.exporter.Put(ctx, b)
}

// States are how the engines stand; err is why there are none.
func (o *outlet) States() ([]export.State, error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.exporter == nil {
		return nil, o.err
	}
	return o.exporter.States(), o.err
}

// Run streams until ctx ends.
func (o *outlet) Run(ctx context.Context) error {
	for {
		now := o.engines()
		err := o.use(ctx, now)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && !errors.Is(err, errOtherEngines) {
			o.log.Warn("nothing is exported", "role", string(o.from), "err", err)
			if !sleep(ctx, storeRetry) {
				return ctx.Err()
			}
		}
	}
}

// errOtherEngines ends an exporter whose engines have changed.
var errOtherEngines = errors.New("other engines are configured")

// use streams to the engines that are configured now, until others are.
func (o *outlet) use(ctx context.Context, now configs.Export) error {
	options := o.options(now)
	watch := task{"engines", func(ctx context.Context) error {
		for sleep(ctx, lookAtConfig) {
			if !reflect.DeepEqual(o.engines(), now) {
				return errOtherEngines
			}
		}
		return ctx.Err()
	}}
	if len(options.Sinks) == 0 {
		o.set(nil, 0, nil)
		if err := os.Remove(o.sinceFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			o.log.Debug("beginning of the export not forgotten", "err", err)
		}
		return runTasks(ctx, watch)
	}
	since, err := o.begin()
	if err != nil {
		o.set(nil, 0, err)
		return err
	}
	e, err := export.New(options, o.report, o.log)
	if err != nil {
		o.set(nil, 0, err)
		return err
	}
	o.set(e, since, nil)
	err = runTasks(ctx, e, watch)
	o.set(nil, 0, err)
	return errors.Join(err, e.Close())
}

func (o *outlet) set(e *export.Exporter, since int64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if errors.Is(err, errOtherEngines) || errors.Is(err, context.Canceled) {
		err = nil
	}
	o.exporter, o.since, o.err = e, since, err
}

func (o *outlet) sinceFile() string { return filepath.Join(o.dir, "since") }

// begin is the time, Unix ms, at which the export began: what happened before is
// not exported, and what happened since is, also of a site that was cut off.
func (o *outlet) begin() (int64, error) {
	text, err := os.ReadFile(o.sinceFile())
	if err == nil {
		if ms, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
			return ms, nil
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("beginning of the export: %w", err)
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return 0, fmt.Errorf("beginning of the export: %w", err)
	}
	ms := time.Now().UnixMilli()
	return ms, configs.ReplaceFile(o.sinceFile(), fmt.Appendf(nil, "%d\n", ms))
}

// String names the task.
func (o *outlet) String() string { return "export from the " + string(o.from) }

// options are those of the engines that are ours.
func (o *outlet) options(e configs.Export) export.Options {
	out := export.Options{Dir: filepath.Join(o.dir, "queue"), MaxBytes: int64(e.QueueMB) << 20}
	for i := range e.Engines {
		if e.Engines[i].From == o.from {
			out.Sinks = append(out.Sinks, o.sink(&e.Engines[i]))
		}
	}
	return out
}

func (o *outlet) sink(x *configs.Engine) export.Sink {
	file := func(name string) string {
		if name == "" {
			return ""
		}
		return filepath.Join(o.secrets, name)
	}
	secret := func(name string) outbound.Secret { return outbound.Secret(file(name)) }
	s := export.Sink{
		Name: x.Name, Private: x.Private,
		Skip: export.Skip{Samples: x.Skips("samples"), Flows: x.Skips("flows"), Events: x.Skips("events")},
		TLS:  outbound.TLS{CAFile: file(x.CAFile), CertFile: file(x.CertFile), KeyFile: file(x.KeyFile), ServerName: x.ServerName},
	}
	switch x.Kind {
	case configs.EnginePrometheus:
		s.RemoteWrite = &export.RemoteWrite{URL: x.URL, User: x.User, Password: secret(x.PasswordFile), Token: secret(x.TokenFile), Headers: x.Headers}
	case configs.EngineInflux:
		s.Influx = &export.Influx{
			URL: x.URL, Database: x.Database, RetentionPolicy: x.RetentionPolicy, Org: x.Org, Bucket: x.Bucket,
			User: x.User, Password: secret(x.PasswordFile), Token: secret(x.TokenFile),
		}
	case configs.EnginePostgres:
		s.Postgres = &export.Postgres{URL: x.URL, Password: secret(x.PasswordFile), Schema: x.Schema, Keep: time.Duration(x.KeepDays) * 24 * time.Hour}
	case configs.EngineSyslog:
		network, addr := x.Syslog()
		s.Syslog = &export.Syslog{Network: syslog.Network(network), Addr: addr}
	}
	return s
}

// keepOpen streams while keep runs, and a moment longer: what keep appends last
// goes out, too.
func (o *outlet) keepOpen(ctx context.Context, keep func(context.Context) error) error {
	after, end := context.WithCancel(context.WithoutCancel(ctx))
	var streaming errgroup.Group
	streaming.Go(func() error { return o.Run(after) })
	err := keep(ctx)
	end()
	if ended := streaming.Wait(); err == nil && !errors.Is(ended, context.Canceled) {
		err = ended
	}
	return err
}

// outlets are those of a node: of its own history, and of the fabric's while it
// is a dashboard. It is safe for concurrent use.
type outlets struct {
	mu  sync.Mutex
	all []*outlet
}

func (s *outlets) add(o *outlet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, o)
}

func (s *outlets) remove(o *outlet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, func(x *outlet) bool { return x == o })
}

func (s *outlets) list() []*outlet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// ExportState is how one engine stands.
type ExportState struct {
	From configs.EngineFrom `json:"from"`
	export.State
}

// states are those of all engines; one that says only why there are none has no
// name.
func (s *outlets) states() []ExportState {
	var out []ExportState
	for _, o := range s.list() {
		states, err := o.States()
		for _, st := range states {
			out = append(out, ExportState{o.from, st})
		}
		if err != nil {
			out = append(out, ExportState{o.from, export.State{Err: err.Error()}})
		}
	}
	return out
}

// Describe implements prometheus.Collector. The metrics come and go with the
// configuration, so that nothing is said about them beforehand.
func (s *outlets) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s *outlets) Collect(ch chan<- prometheus.Metric) {
	for _, o := range s.list() {
		o.mu.RLock()
		if o.exporter != nil {
			prometheus.WrapCollectorWith(prometheus.Labels{"from": string(o.from)}, o.exporter).Collect(ch)
		}
		o.mu.RUnlock()
	}
}

// newOutlet is the outlet of one of the node's stores.
func (n *Node) newOutlet(from configs.EngineFrom, site string, into func() (*store.Store, bool), active func() bool) *outlet {
	return &outlet{
		from: from, dir: filepath.Join(n.o.Dir, "export-"+string(from)), secrets: secretsDir(n.o.Dir), active: active, log: n.log,
		engines: func() configs.Export { return n.fabric.Load().config.Export },
		report: func(ctx context.Context, e store.Event) error {
			s, ok := into()
			if !ok {
				return errStarting
			}
			return s.Append(ctx, store.Batch{Site: site, At: e.At, Events: []store.Event{e}})
		},
	}
}
