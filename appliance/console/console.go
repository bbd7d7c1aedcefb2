package console

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"patronus/appliance/store"
	"patronus/dashboard"
	"patronus/dashboard/control"
	"patronus/dashboard/live"
	"patronus/netstack"
	"patronus/netstack/capture"
)

// Edge is the edge of one site, near or far.
type Edge interface {
	Status(ctx context.Context) (*netstack.Status, error)
	Explain(ctx context.Context, q netstack.Question) (*netstack.Explanation, error)
	Reevaluate(ctx context.Context, key string) error
	TestPath(ctx context.Context, id string) (*netstack.PathTest, error)
	Capture(ctx context.Context, o netstack.CaptureOptions, w io.Writer) (capture.Result, error)
}

// Plane is the configuration that says which sites there are.
type Plane interface {
	Current() *control.State
}

// Options are what a Console stands on.
type Options struct {
	Store *store.Store
	Plane Plane
	// Edge is the edge of a site of the current configuration.
	Edge func(site string) Edge
	// Applied is the newest revision that a site has acknowledged, 0 if none, and
	// why it has not taken a newer one.
	Applied func(site string) (revision uint64, failed string)
	// Version is that of a site's program, "" if it is not known; nil knows none.
	Version func(site string) string
	Hub     *live.Hub
	Now     func() time.Time
	Log     *slog.Logger
}

// Console is what is known of the fabric.
type Console struct {
	o   Options
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	states  map[string]*dashboard.SiteState // replaced, never written to
	version uint64
	blocks  map[blockKey]uint64 // since the last Facts
	began   time.Time
}

// New builds a console; Run keeps it up to date.
func New(o Options) *Console {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Console{o: o, log: o.Log, now: o.Now, began: o.Now(), states: map[string]*dashboard.SiteState{}}
}

// String names the task.
func (c *Console) String() string { return "console" }

// Run asks the sites and publishes what is recorded, until ctx ends.
func (c *Console) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.poll(ctx) })
	group.Go(func() error { return c.publish(ctx) })
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
