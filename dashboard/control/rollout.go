package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"patronus/appliance/ledger"
	"patronus/configs"
	"patronus/dashboard/auth"
)

var (
	// ErrRollout: another change is on its way to the sites, stage by stage.
	ErrRollout = errors.New("a rollout is in progress: wait for it, or abort it")
	// ErrNoRollout: there is none that could be changed so.
	ErrNoRollout = errors.New("no such rollout in progress")
)

// RolloutState is where a rollout stands.
type RolloutState string

// The states of a rollout. Running, paused and halted ones are in progress.
const (
	RolloutRunning RolloutState = "running"
	RolloutPaused  RolloutState = "paused" // by a person
	RolloutHalted  RolloutState = "halted" // by itself: Why says why
	RolloutAborted RolloutState = "aborted"
	RolloutDone    RolloutState = "done"
)

// DefaultSoak is how long a stage is watched before the next one begins.
const DefaultSoak = 30 * time.Second

// Stage is a set of sites that get a revision together.
type Stage struct {
	Name  string   `json:"name"`
	Sites []string `json:"sites"`
}

// Rollout is a revision on its way to the sites by stages. It is immutable.
type Rollout struct {
	// Revision is given to the sites of the stages up to Stage; the others stay
	// with Base.
	Revision uint64       `json:"revision"`
	Base     uint64       `json:"base"`
	State    RolloutState `json:"state"`
	Why      string       `json:"why,omitempty"`
	Stages   []Stage      `json:"stages"`
	Stage    int          `json:"stage"`
	By       string       `json:"user"`
	SoakMS   int64        `json:"soak_ms"`
	// StartedAt, StageAt and EndedAt are in UTC.
	StartedAt time.Time `json:"started_at"`
	StageAt   time.Time `json:"stage_at"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
}

// InProgress reports whether sites are held back.
func (r *Rollout) InProgress() bool {
	return r != nil && (r.State == RolloutRunning || r.State == RolloutPaused || r.State == RolloutHalted)
}

// Released reports whether a site may have the rollout's revision. Sites that
// are in no stage have come since, with it.
func (r *Rollout) Released(site string) bool {
	for i := range r.Stages {
		if slices.Contains(r.Stages[i].Sites, site) {
			return i <= r.Stage
		}
	}
	return true
}

// Staged asks for a change to be given to the sites by stages.
type Staged struct {
	// Canary are the sites of the first stage; without any it is one.
	Canary []string
	Soak   time.Duration // of each stage; 0 means [DefaultSoak]
}

const rolloutKey = "rollout"

// stages are one site, a tenth of them, and all. The site that the plane's own
// Config is of, which has the dashboard, comes last.
func stages(n *configs.Network, own string, canary []string) ([]Stage, error) {
	var names []string
	for i := range n.Sites {
		if s := &n.Sites[i]; s.Managed && !s.Pending() {
			names = append(names, s.Name)
		}
	}
	for _, c := range canary {
		if !slices.Contains(names, c) {
			return nil, &configs.FieldError{Path: "canary", Value: c, Why: "is no site that is managed from here"}
		}
	}
	if len(canary) == 0 {
		canary = slices.DeleteFunc(slices.Clone(names), func(s string) bool { return s == own })
		canary = canary[:min(1, len(canary))]
	}
	rest := slices.DeleteFunc(names, func(s string) bool { return slices.Contains(canary, s) })
	slices.SortStableFunc(rest, func(a, b string) int { return cmp.Compare(b2i(a == own), b2i(b == own)) })
	tenth := min(len(rest), (len(rest)+len(canary)+9)/10)
	out := []Stage{{"canary", canary}, {"10 %", rest[:tenth]}, {"all", rest[tenth:]}}
	return slices.DeleteFunc(out, func(s Stage) bool { return len(s.Sites) == 0 }), nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// heldNetwork is what sites that are held back run: the base, with the sites
// that have been enrolled or adopted since.
func heldNetwork(base, now *configs.Network) *configs.Network {
	held := base.Clone()
	for i := range now.Sites {
		s := &now.Sites[i]
		old := held.Site(s.Name)
		switch {
		case old == nil && s.Managed && !s.Pending():
			held.Sites = append(held.Sites, *s)
		case old != nil && (old.Pending() && !s.Pending() || !old.Managed && s.Managed):
			*old = *s
		}
	}
	return held
}

// For is the configuration that a site is to have now: the newest, or the one
// before a rollout that has not come to the site.
func (p *Plane) For(site string) *State {
	s := p.state.Load()
	if s.held == nil || s.rollout.Released(site) {
		return &s.State
	}
	return s.held
}

// Rollout is the newest rollout, nil if there was none.
func (p *Plane) Rollout() *Rollout { return p.state.Load().rollout }

// loadRollout reads the rollout of a plane that is being opened.
func (p *Plane) loadRollout(tx *ledger.Tx, s *state) error {
	text, err := tx.Get(rolloutKey)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var r Rollout
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("rollout: %w", err)
	}
	s.rollout = &r
	if !r.InProgress() {
		return nil
	}
	return s.hold(tx)
}

// hold finds what sites that are held back run.
func (s *state) hold(tx *ledger.Tx) error {
	at := slices.IndexFunc(s.history, func(x Revision) bool { return x.Number == s.rollout.Base })
	if at < 0 {
		return fmt.Errorf("base of the rollout, revision %d: %w", s.rollout.Base, ErrNoRevision)
	}
	base, err := read(tx, s.history[at])
	if err != nil {
		return err
	}
	base.Network = heldNetwork(base.Network, s.Network)
	s.held = base
	return nil
}

// planned is the rollout that a change begins, nil if it goes to all at once.
func (p *Plane) planned(by auth.Actor, ch Change, s *state, next *State) (*Rollout, error) {
	if ch.rollout != nil {
		r := *ch.rollout
		return &r, nil
	}
	if ch.Staged == nil || s.Revision.Number == 0 {
		return nil, nil
	}
	list, err := stages(next.Network, next.Config.Site, ch.Staged.Canary)
	if err != nil {
		return nil, err
	}
	now := p.now().UTC()
	return &Rollout{
		Revision: next.Revision.Number, Base: s.Revision.Number, State: RolloutRunning, Stages: list, By: by.User,
		SoakMS: cmp.Or(ch.Staged.Soak, DefaultSoak).Milliseconds(), StartedAt: now, StageAt: now,
	}, nil
}

// Steer changes the rollout in progress: edit gets a copy. It returns
// [ErrNoRollout] if there is none.
func (p *Plane) Steer(ctx context.Context, by auth.Actor, action string, edit func(r *Rollout) error) (*Rollout, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.state.Load()
	if !s.rollout.InProgress() {
		return nil, ErrNoRollout
	}
	next := *s.rollout
	if err := edit(&next); err != nil {
		return nil, err
	}
	if reflect.DeepEqual(next, *s.rollout) {
		return &next, nil
	}
	after, err := json.Marshal(next)
	if err != nil {
		return nil, err
	}
	err = p.ledger.Update(ctx, func(tx *ledger.Tx) error {
		if err := tx.Put(rolloutKey, after); err != nil {
			return err
		}
		return tx.Audit(ledger.AuditRecord{
			At: p.now().UTC(), User: by.User, Action: action, ResourceType: "rollout", ResourceID: fmt.Sprint(next.Revision),
			IP: by.Client.Addr, UserAgent: by.Client.UserAgent, After: after, Outcome: "ok",
		})
	})
	if err != nil {
		return nil, fmt.Errorf("rollout of revision %d: %w", next.Revision, err)
	}
	out := *s
	out.rollout, out.changed = &next, make(chan struct{})
	if !next.InProgress() {
		out.held = nil
	}
	p.state.Store(&out)
	close(s.changed)
	return &next, nil
}

// Pause holds a rollout where it is; Resume lets it go on.
func (p *Plane) Pause(ctx context.Context, by auth.Actor) (*Rollout, error) {
	return p.Steer(ctx, by, "pause_rollout", func(r *Rollout) error {
		if r.State == RolloutRunning {
			r.State = RolloutPaused
		}
		return nil
	})
}

// Resume lets a rollout go on that was paused or has halted itself.
func (p *Plane) Resume(ctx context.Context, by auth.Actor) (*Rollout, error) {
	return p.Steer(ctx, by, "resume_rollout", func(r *Rollout) error {
		r.State, r.Why, r.StageAt = RolloutRunning, "", p.now().UTC()
		return nil
	})
}

// Abort ends a rollout: all sites get what they had before it, as a new
// revision.
func (p *Plane) Abort(ctx context.Context, by auth.Actor) (*Rollout, error) {
	s := p.state.Load()
	if !s.rollout.InProgress() {
		return nil, ErrNoRollout
	}
	ended := *s.rollout
	ended.State, ended.EndedAt = RolloutAborted, p.now().UTC()
	_, err := p.Commit(ctx, by, Change{
		Action: "abort_rollout", Kind: "rollout", ID: fmt.Sprint(ended.Revision), rollout: &ended,
		Edit: func(n *configs.Network) error {
			now := p.state.Load()
			if now.held == nil || now.rollout.Revision != ended.Revision {
				return ErrNoRollout
			}
			*n = *now.held.Network.Clone()
			return nil
		},
	})
	return &ended, err
}
