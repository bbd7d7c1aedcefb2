package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"patronus/appliance/ledger"
	"patronus/configs"
	"patronus/dashboard/auth"
	"patronus/netstack/policy"
)

var (
	// ErrNoRevision: there is no such revision, or none that old.
	ErrNoRevision = errors.New("no such revision")
	// ErrUnchanged: the change leaves the configuration as it is; nothing was
	// written.
	ErrUnchanged = errors.New("nothing changes")
)

// keepRevisions is how many revisions are kept in full.
const keepRevisions = 500

// Revision says who made a revision, when and by what.
type Revision struct {
	Number uint64    `json:"revision"`
	At     time.Time `json:"at"`
	User   string    `json:"user"`
	Action string    `json:"action"`
	Kind   string    `json:"resource_type"`
	ID     string    `json:"resource_id,omitempty"`
}

// Change is one change of the configuration.
type Change struct {
	// Action, Kind and ID name it in the audit log: "update_policy", "policy",
	// "default~web".
	Action, Kind, ID string
	// Edit makes the change in a copy of its own. It may be called again.
	Edit func(n *configs.Network) error
	// Show is what of a network the audit log keeps as before and after; nil if
	// there is nothing.
	Show func(n *configs.Network) any
	// Also is written in the transaction of the revision; if it fails nothing is
	// written. It may be called again. nil for nothing.
	Also func(tx *ledger.Tx) error
	// System changes are made by the dashboard itself, for an appliance.
	System bool
	// Staged gives the change to the sites by stages; nil: to all at once.
	Staged *Staged
	// DryRun checks the change and writes nothing.
	DryRun bool

	rollout *Rollout // what becomes of the rollout in progress
}

// Plane keeps the configuration.
type Plane struct {
	ledger *ledger.Ledger
	now    func() time.Time
	state  atomic.Pointer[state]

	mu sync.Mutex // held by a commit
}

// State is the configuration at one revision. It is immutable.
type State struct {
	Network *configs.Network
	// Config is the network as one managed site knows it, checked and with its
	// defaults: what all sites share is in it.
	Config   *configs.Config
	Revision Revision
}

type state struct {
	State
	history []Revision // oldest first, those that are kept in full
	changed chan struct{}
	rollout *Rollout // the newest; nil if there was none
	held    *State   // of the sites that a rollout has not come to; nil: none are held back
}

func revisionKey(n uint64) string { return fmt.Sprintf("revision/%020d", n) }

func bodyKey(n uint64) string { return fmt.Sprintf("body/%020d", n) }

// Open reads the newest revision from a ledger. If there is none, first becomes
// revision 1.
func Open(ctx context.Context, l *ledger.Ledger, first *configs.Network, now func() time.Time) (*Plane, error) {
	p := &Plane{ledger: l, now: now}
	s := &state{changed: make(chan struct{})}
	var bad error
	err := l.View(func(tx *ledger.Tx) error {
		err := tx.Scan("revision/", "", func(_ string, text []byte) bool {
			var r Revision
			if bad = json.Unmarshal(text, &r); bad != nil {
				return false
			}
			s.history = append(s.history, r)
			return true
		})
		if err = errors.Join(err, bad); err != nil || len(s.history) == 0 {
			return err
		}
		newest, err := read(tx, s.history[len(s.history)-1])
		if err == nil {
			s.State = *newest
			err = p.loadRollout(tx, s)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if s.Network == nil {
		s.Network = &configs.Network{}
	}
	p.state.Store(s)
	if s.Revision.Number > 0 {
		return p, nil
	}
	_, err = p.Commit(ctx, auth.Actor{User: "system"}, Change{
		Action: "create_fabric", Kind: "configuration",
		Edit: func(n *configs.Network) error { *n = *first.Clone(); return nil },
	})
	return p, err
}

// read is a revision as it was committed.
func read(tx *ledger.Tx, r Revision) (*State, error) {
	text, err := tx.Get(bodyKey(r.Number))
	if err != nil {
		return nil, err
	}
	n, err := configs.DecodeNetwork(text)
	if err != nil {
		return nil, fmt.Errorf("revision %d: %w", r.Number, err)
	}
	c, err := shared(n)
	if err != nil {
		return nil, fmt.Errorf("revision %d: %w", r.Number, err)
	}
	return &State{Network: n, Config: c, Revision: r}, nil
}

// shared is a network as its first managed site knows it.
func shared(n *configs.Network) (*configs.Config, error) {
	for i := range n.Sites {
		if n.Sites[i].Managed {
			return n.Config(n.Sites[i].Name)
		}
	}
	return nil, &configs.FieldError{Path: "sites", Why: "none is managed from here"}
}

// Current is the newest configuration.
func (p *Plane) Current() *State { return &p.state.Load().State }

// Changed is closed when there is a newer revision than the one that Current
// gave before: ask Changed first, then Current.
func (p *Plane) Changed() <-chan struct{} { return p.state.Load().changed }

// Revisions are the revisions that are kept, oldest first; borrowed.
func (p *Plane) Revisions() []Revision { return p.state.Load().history }

// At is the configuration as it was at a time, or [ErrNoRevision].
func (p *Plane) At(t time.Time) (*State, error) {
	s := p.state.Load()
	i := sort.Search(len(s.history), func(i int) bool { return s.history[i].At.After(t) })
	if i == 0 {
		return nil, fmt.Errorf("%s: %w", t.Format(time.RFC3339), ErrNoRevision)
	}
	r := s.history[i-1]
	if r.Number == s.Revision.Number {
		return &s.State, nil
	}
	var old *State
	err := p.ledger.View(func(tx *ledger.Tx) (err error) {
		old, err = read(tx, r)
		return err
	})
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, fmt.Errorf("revision %d: %w", r.Number, ErrNoRevision)
	}
	return old, err
}

// Commit makes a change the next revision, durably, and returns it. Problems of
// the configuration come as *configs.FieldError, those of policies as
// *manifest.Problems. A change that changes nothing returns the revision as it
// is and [ErrUnchanged].
func (p *Plane) Commit(ctx context.Context, by auth.Actor, ch Change) (Revision, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.state.Load()
	if s.rollout.InProgress() && !ch.System && ch.rollout == nil {
		return s.Revision, ErrRollout
	}
	next := State{Network: s.Network.Clone()}
	if err := ch.Edit(next.Network); err != nil {
		return s.Revision, err
	}
	var err error
	if next.Config, err = check(s.Network, next.Network); err != nil {
		return s.Revision, err
	}
	text, err := next.Network.Canonical()
	if err != nil {
		return s.Revision, err
	}
	if s.Revision.Number > 0 {
		old, err := s.Network.Canonical()
		if err != nil {
			return s.Revision, err
		}
		if bytes.Equal(old, text) {
			return s.Revision, ErrUnchanged
		}
	}
	next.Revision = Revision{Number: s.Revision.Number + 1, At: p.now().UTC(), User: by.User, Action: ch.Action, Kind: ch.Kind, ID: ch.ID}
	begun, err := p.planned(by, ch, s, &next)
	if err != nil {
		return s.Revision, err
	}
	if ch.DryRun {
		return next.Revision, nil
	}
	kept := s.history[max(0, len(s.history)+1-keepRevisions):]
	out := &state{State: next, history: append(slices.Clip(kept), next.Revision), changed: make(chan struct{}), rollout: s.rollout}
	if begun != nil {
		out.rollout = begun
	}
	if out.rollout.InProgress() {
		held := s.State
		if begun == nil {
			held = *s.held
		}
		held.Network = heldNetwork(held.Network, next.Network)
		out.held = &held
	}
	if err := p.write(ctx, by, ch, s, out, text, begun); err != nil {
		return s.Revision, fmt.Errorf("write revision %d: %w", next.Revision.Number, err)
	}
	p.state.Store(out)
	close(s.changed)
	return next.Revision, nil
}

// check checks what a change can have broken. What all sites share, and what
// sites know of each other, is in every site's configuration, so that one of
// them finds what is wrong with it; what concerns one site alone is checked
// for the sites that changed. Classes name uplinks that each site must have.
func check(before, after *configs.Network) (*configs.Config, error) {
	if err := after.Rehearse(); err != nil {
		return nil, err
	}
	c, err := shared(after)
	if err != nil {
		return nil, err
	}
	if !reflect.DeepEqual(before.Classes, after.Classes) {
		if err := after.Validate(); err != nil {
			return nil, err
		}
	}
	for i := range after.Sites {
		site := &after.Sites[i]
		if !site.Managed || site.Name == c.Site {
			continue
		}
		if old := before.Site(site.Name); old != nil && reflect.DeepEqual(old, site) {
			continue
		}
		if _, err := after.Config(site.Name); err != nil {
			return nil, err
		}
	}
	if after.Alerts != nil {
		if err := after.Alerts.Validate(); err != nil {
			return nil, err
		}
	}
	_, err = Compile(c)
	return c, err
}

func (p *Plane) write(ctx context.Context, by auth.Actor, ch Change, from, to *state, text []byte, begun *Rollout) error {
	before, after, r, history := from.Network, to.Network, to.Revision, from.history
	head, err := json.Marshal(r)
	if err != nil {
		return err
	}
	a := ledger.AuditRecord{
		At: r.At, User: by.User, Action: ch.Action, ResourceType: ch.Kind, ResourceID: ch.ID,
		IP: by.Client.Addr, UserAgent: by.Client.UserAgent, Outcome: "ok",
	}
	if ch.Show != nil {
		if a.Before, err = shown(ch.Show(before)); err != nil {
			return err
		}
		if a.After, err = shown(ch.Show(after)); err != nil {
			return err
		}
	}
	return p.ledger.Update(ctx, func(tx *ledger.Tx) error {
		if ch.Also != nil {
			if err := ch.Also(tx); err != nil {
				return err
			}
		}
		if begun != nil {
			if err := put(tx, rolloutKey, begun); err != nil {
				return err
			}
		}
		if len(history) >= keepRevisions {
			oldest := history[len(history)-keepRevisions].Number
			if err := errors.Join(tx.Delete(revisionKey(oldest)), tx.Delete(bodyKey(oldest))); err != nil {
				return err
			}
		}
		if err := tx.Put(revisionKey(r.Number), head); err != nil {
			return err
		}
		if err := tx.Put(bodyKey(r.Number), text); err != nil {
			return err
		}
		return tx.Audit(a)
	})
}

func shown(v any) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	return json.Marshal(v)
}

// Input is what the policies of a configuration are judged over. All bad
// policies are named, each with line and column in its own text; a name is
// taken once.
func Input(c *configs.Config) (policy.Input, error) {
	in := policy.Input{Namespaces: c.Namespaces, Endpoints: c.Hosts}
	var bad []error
	seen := make(map[string]int, len(c.Policies))
	for i := range c.Policies {
		pol, err := policy.FromConfig(c.Policies[i], fmt.Sprintf("policies[%d]", i))
		if err != nil {
			bad = append(bad, err)
			continue
		}
		if first, twice := seen[pol.ID()]; twice {
			bad = append(bad, &configs.FieldError{Path: fmt.Sprintf("policies[%d].spec", i), Value: pol.ID(), Why: fmt.Sprintf("is the name of policies[%d] already", first)})
			continue
		}
		seen[pol.ID()] = i
		in.Policies = append(in.Policies, pol)
	}
	return in, errors.Join(bad...)
}

// Compile makes the ruleset of a configuration: what cannot be compiled is not
// committed.
func Compile(c *configs.Config) (*policy.Ruleset, error) {
	in, err := Input(c)
	if err != nil {
		return nil, err
	}
	return policy.Compile(in)
}
