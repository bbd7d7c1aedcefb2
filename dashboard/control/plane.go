package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	// Edit makes the change in a copy. It must replace slices and maps, never
	// write into them: they are shared. It may be called again.
	Edit func(c *configs.Config) error
	// Show is what of a configuration the audit log keeps as before and after;
	// nil if there is nothing.
	Show func(c *configs.Config) any
	// DryRun checks the change and writes nothing.
	DryRun bool
}

// Plane keeps the configuration.
type Plane struct {
	ledger *ledger.Ledger
	now    func() time.Time
	state  atomic.Pointer[state]

	mu sync.Mutex // held by a commit
}

type state struct {
	config  *configs.Config
	newest  Revision
	history []Revision // oldest first, those that are kept in full
	changed chan struct{}
}

func revisionKey(n uint64) string { return fmt.Sprintf("revision/%020d", n) }

func bodyKey(n uint64) string { return fmt.Sprintf("body/%020d", n) }

// Open reads the newest revision from a ledger. If there is none, first becomes
// revision 1.
func Open(ctx context.Context, l *ledger.Ledger, first *configs.Config, now func() time.Time) (*Plane, error) {
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
		s.newest = s.history[len(s.history)-1]
		s.config, err = body(tx, s.newest.Number)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	p.state.Store(s)
	if s.config != nil {
		return p, nil
	}
	s.config = &configs.Config{}
	_, err = p.Commit(ctx, auth.Actor{User: "system"}, Change{
		Action: "create_fabric", Kind: "configuration",
		Edit: func(c *configs.Config) error { *c = *first; return nil },
	})
	return p, err
}

func body(tx *ledger.Tx, number uint64) (*configs.Config, error) {
	text, err := tx.Get(bodyKey(number))
	if err != nil {
		return nil, err
	}
	return configs.Decode(text)
}

// Current is the newest configuration and its revision.
func (p *Plane) Current() (*configs.Config, Revision) {
	s := p.state.Load()
	return s.config, s.newest
}

// Changed is closed when there is a newer revision than the one that Current
// gave before: ask Changed first, then Current.
func (p *Plane) Changed() <-chan struct{} { return p.state.Load().changed }

// Revisions are the revisions that are kept, oldest first; borrowed.
func (p *Plane) Revisions() []Revision { return p.state.Load().history }

// At is the configuration as it was at a time, or [ErrNoRevision].
func (p *Plane) At(t time.Time) (*configs.Config, Revision, error) {
	s := p.state.Load()
	i := sort.Search(len(s.history), func(i int) bool { return s.history[i].At.After(t) })
	if i == 0 {
		return nil, Revision{}, fmt.Errorf("%s: %w", t.Format(time.RFC3339), ErrNoRevision)
	}
	r := s.history[i-1]
	if r.Number == s.newest.Number {
		return s.config, r, nil
	}
	c, err := p.Revision(r.Number)
	return c, r, err
}

// Revision is the configuration of a revision, or [ErrNoRevision].
func (p *Plane) Revision(number uint64) (*configs.Config, error) {
	var c *configs.Config
	err := p.ledger.View(func(tx *ledger.Tx) (err error) {
		c, err = body(tx, number)
		return err
	})
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, fmt.Errorf("revision %d: %w", number, ErrNoRevision)
	}
	return c, err
}

// Commit makes a change the next revision, durably, and returns it. Problems of
// the configuration come as *configs.FieldError, those of policies as
// *manifest.Problems. A change that changes nothing returns the revision as it
// is and [ErrUnchanged].
func (p *Plane) Commit(ctx context.Context, by auth.Actor, ch Change) (Revision, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.state.Load()
	next := *s.config
	if err := ch.Edit(&next); err != nil {
		return s.newest, err
	}
	config, err := configs.New(next)
	if err != nil {
		return s.newest, err
	}
	if _, err := Compile(config); err != nil {
		return s.newest, err
	}
	text, err := config.Canonical()
	if err != nil {
		return s.newest, err
	}
	if s.newest.Number > 0 {
		old, err := s.config.Canonical()
		if err != nil {
			return s.newest, err
		}
		if bytes.Equal(old, text) {
			return s.newest, ErrUnchanged
		}
	}
	r := Revision{Number: s.newest.Number + 1, At: p.now().UTC(), User: by.User, Action: ch.Action, Kind: ch.Kind, ID: ch.ID}
	if ch.DryRun {
		return r, nil
	}
	if err := p.write(ctx, by, ch, s.config, config, text, r, s.history); err != nil {
		return s.newest, fmt.Errorf("write revision %d: %w", r.Number, err)
	}
	kept := s.history[max(0, len(s.history)+1-keepRevisions):]
	p.state.Store(&state{config: config, newest: r, history: append(slices.Clip(kept), r), changed: make(chan struct{})})
	close(s.changed)
	return r, nil
}

func (p *Plane) write(ctx context.Context, by auth.Actor, ch Change, before, after *configs.Config, text []byte, r Revision, history []Revision) error {
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
// policies are named, each with line and column in its own text.
func Input(c *configs.Config) (policy.Input, error) {
	in := policy.Input{Namespaces: c.Namespaces, Endpoints: c.Hosts}
	var bad []error
	for i := range c.Policies {
		pol, err := policy.FromConfig(c.Policies[i], fmt.Sprintf("policies[%d]", i))
		if err != nil {
			bad = append(bad, err)
			continue
		}
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
