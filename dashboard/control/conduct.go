package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"patronus/dashboard/auth"
)

// Health is what the fabric says of itself: what a rollout must not make worse.
type Health struct {
	PathsDown int
	// Loss is the mean of all paths that are measured, percent.
	Loss float64
	// Denied counts the flows that policies have denied, ever.
	Denied uint64
}

// The margins within which a fabric is no worse than before.
const (
	lossMargin   = 1.0 // percentage points
	deniedFactor = 2.0
	deniedMargin = 1.0 // flows a second
)

// Worse says what is worse in a fabric than it was, "" if nothing is. rate is
// how many flows a second were denied before, and since how long the stage goes
// on.
func (h Health) Worse(before Health, rate float64, since time.Duration) string {
	if h.PathsDown > before.PathsDown {
		return fmt.Sprintf("%d paths are down, %d were before", h.PathsDown, before.PathsDown)
	}
	if h.Loss > before.Loss+lossMargin {
		return fmt.Sprintf("%.1f %% of packets are lost, %.1f %% were before", h.Loss, before.Loss)
	}
	if s := since.Seconds(); s >= 1 && h.Denied > before.Denied {
		if now := float64(h.Denied-before.Denied) / s; now > deniedFactor*rate+deniedMargin {
			return fmt.Sprintf("%.1f flows a second are blocked, %.1f were before", now, rate)
		}
	}
	return ""
}

// ConductorOptions are what a Conductor stands on.
type ConductorOptions struct {
	Plane *Plane
	// Progress is how far each site has got.
	Progress func() map[string]Progress
	// Health is the fabric's now; nil: only the sites' answers count.
	Health func() Health
	Now    func() time.Time
	Log    *slog.Logger
}

// Conductor leads rollouts from stage to stage, and halts those that make the
// fabric worse. What it decides by is in the ledger: another one goes on where
// it was.
type Conductor struct {
	o      ConductorOptions
	seen   uint64 // the revision that before is of
	before Health
	rate   float64 // denied flows a second before
	last   Health
	lastAt time.Time
}

// NewConductor builds a conductor; Run makes it work.
func NewConductor(o ConductorOptions) *Conductor {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Health == nil {
		o.Health = func() Health { return Health{} }
	}
	return &Conductor{o: o}
}

// String names the task.
func (c *Conductor) String() string { return "conductor" }

// Run conducts until ctx ends.
func (c *Conductor) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := c.Step(ctx); err != nil && ctx.Err() == nil {
			c.o.Log.Error("rollout", "err", err)
		}
	}
}

// Step looks once at the rollout in progress and does what is to be done.
func (c *Conductor) Step(ctx context.Context) error {
	now, health := c.o.Now(), c.o.Health()
	r := c.o.Plane.Rollout()
	if !r.InProgress() || r.State != RolloutRunning {
		c.rest(now, health)
		return nil
	}
	if c.seen != r.Revision {
		c.seen, c.before = r.Revision, c.last
		if c.lastAt.IsZero() {
			c.before = health
		}
	}
	progress := c.o.Progress()
	acked, away := 0, 0
	for _, site := range r.Stages[r.Stage].Sites {
		switch p := progress[site]; {
		case p.Rejected:
			return c.steer(ctx, "halt_rollout", r, func(x *Rollout) {
				x.State, x.Why = RolloutHalted, fmt.Sprintf("site %s rolled it back: %s", site, p.Failed)
			})
		case p.Revision >= r.Revision:
			acked++
		case p.Failed != "":
			away++
		}
	}
	if why := health.Worse(c.before, c.rate, now.Sub(r.StartedAt)); why != "" {
		return c.steer(ctx, "halt_rollout", r, func(x *Rollout) { x.State, x.Why = RolloutHalted, why })
	}
	// Who cannot be reached is tried for ever, and holds nobody else up; but a
	// stage in which nobody has answered shows nothing.
	all := len(r.Stages[r.Stage].Sites)
	if acked == 0 || acked+away < all || r.Stage == 0 && away > 0 || now.Sub(r.StageAt) < time.Duration(r.SoakMS)*time.Millisecond {
		return nil
	}
	return c.steer(ctx, "advance_rollout", r, func(x *Rollout) {
		x.StageAt = now.UTC()
		if x.Stage++; x.Stage == len(x.Stages) {
			x.Stage, x.State, x.EndedAt = len(x.Stages)-1, RolloutDone, now.UTC()
		}
	})
}

// rest keeps what the fabric is like while nothing is rolled out.
func (c *Conductor) rest(now time.Time, health Health) {
	if dt := now.Sub(c.lastAt).Seconds(); !c.lastAt.IsZero() && dt > 0 && health.Denied >= c.last.Denied {
		const weight = 0.1 // of a second's rate: about the last ten seconds
		c.rate += weight * (float64(health.Denied-c.last.Denied)/dt - c.rate)
	}
	c.last, c.lastAt = health, now
}

// steer changes the rollout unless somebody else has meanwhile.
func (c *Conductor) steer(ctx context.Context, action string, seen *Rollout, edit func(*Rollout)) error {
	_, err := c.o.Plane.Steer(ctx, auth.Actor{User: "system"}, action, func(r *Rollout) error {
		if r.Revision != seen.Revision || r.State != seen.State || r.Stage != seen.Stage {
			return ErrNoRollout
		}
		edit(r)
		return nil
	})
	if errors.Is(err, ErrNoRollout) {
		return nil
	}
	return err
}
