package wire

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"patronus/e2e/vnet"
)

// End names an interface.
type End struct {
	// Netns is a name under /run/netns or a path; empty is the process's own.
	Netns     string
	Interface string
}

// Config describes a Wire.
type Config struct {
	A, B       End
	AtoB, BtoA vnet.Impairment
	Seed       uint64
	// Control, if set, is the path of a unix socket that takes commands.
	Control string
	// Memory bounds the frames that wait, in bytes; 0 means 64 MiB.
	Memory int
}

// Wire is a cable. Impairments are of IP packets: sizes and rates do not count
// the Ethernet header.
type Wire struct {
	cfg  Config
	line *vnet.DelayLine
	link vnet.Link // Out is from A to B
	a, b *end
}

const defaultMemory = 64 << 20

// New opens both interfaces. Call Run or Close.
func New(cfg Config) (*Wire, error) {
	if err := errors.Join(cfg.AtoB.Validate(), cfg.BtoA.Validate()); err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	if cfg.Memory == 0 {
		cfg.Memory = defaultMemory
	}
	w := &Wire{
		cfg: cfg, line: vnet.NewDelayLine(cfg.Memory),
		link: vnet.Link{Out: vnet.NewShaper(cfg.AtoB, cfg.Seed+1), In: vnet.NewShaper(cfg.BtoA, cfg.Seed+2)},
	}
	var err error
	if w.a, err = openEnd(cfg.A); err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	if w.b, err = openEnd(cfg.B); err != nil {
		return nil, errors.Join(fmt.Errorf("wire: %w", err), w.a.close())
	}
	w.a.lane = w.line.Lane(w.b, w.link.Out)
	w.b.lane = w.line.Lane(w.a, w.link.In)
	return w, nil
}

// Run is New and [Wire.Run] in one.
func Run(ctx context.Context, cfg Config) error {
	w, err := New(cfg)
	if err != nil {
		return err
	}
	return w.Run(ctx)
}

// Link is the cable's two directions: Out is from A to B.
func (w *Wire) Link() *vnet.Link { return &w.link }

// Stats counts what the link does not explain.
type Stats struct {
	// Refused frames were not taken by an interface.
	Refused uint64 `json:"refused"`
	// Cut is how many superpackets were cut, Uncut how many could not be and
	// were dropped.
	Cut   uint64 `json:"cut"`
	Uncut uint64 `json:"uncut"`
	// NoMemory did not fit Config.Memory.
	NoMemory uint64 `json:"no_memory"`
}

// Stats returns the counts so far; those of the directions are in Link.
func (w *Wire) Stats() Stats {
	s := Stats{NoMemory: w.line.Dropped()}
	for _, e := range []*end{w.a, w.b} {
		s.Refused += e.refused.Load()
		s.Cut += e.cut.Load()
		s.Uncut += e.uncut.Load()
	}
	return s
}

// SetCarrier takes the interface of an end ("a" or "b") down or up: the other
// end of its veth pair loses or regains carrier.
func (w *Wire) SetCarrier(name string, up bool) error {
	var e *end
	switch name {
	case "a":
		e = w.a
	case "b":
		e = w.b
	default:
		return fmt.Errorf("%w: end %q", ErrCommand, name)
	}
	if err := setInterface(e.End, up); err != nil {
		return fmt.Errorf("wire: carrier of %s: %w", name, err)
	}
	return nil
}

// Run carries frames until ctx ends, then closes the interfaces' sockets. It
// returns nil after ctx has ended, or the reason why it cannot go on.
func (w *Wire) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.line.Run(ctx) })
	g.Go(w.a.read)
	g.Go(w.b.read)
	if w.cfg.Control != "" {
		g.Go(func() error { return w.serve(ctx, w.cfg.Control) })
	}
	g.Go(func() error {
		<-ctx.Done()
		return w.Close()
	})
	return g.Wait()
}

// String is the task's name.
func (w *Wire) String() string { return "wire " + w.cfg.A.Interface + "~" + w.cfg.B.Interface }

// Close closes the sockets. A second Close does nothing.
func (w *Wire) Close() error { return errors.Join(w.a.close(), w.b.close()) }

// counters of one end.
type counters struct {
	refused, cut, uncut atomic.Uint64
}

// enter feeds frames to the other end.
func (e *end) enter(frames [][]byte) { e.lane.Enter(frames, -etherLen, time.Now()) }
