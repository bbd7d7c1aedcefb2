package alert

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"patronus/appliance/ledger"
	"patronus/configs"
)

var (
	// ErrNotFound: there is no such alert, mute or channel (any more).
	ErrNotFound = errors.New("no such alert, mute or channel")
	// ErrMany: there are too many mutes.
	ErrMany = errors.New("there are too many silences and windows")
)

// Options are what a Keeper stands on.
type Options struct {
	Ledger *ledger.Ledger
	// Alerts are the rules and channels as they are now; borrowed.
	Alerts func() *configs.Alerts
	// Facts are what is known now; what was blocked, since it was last called.
	Facts func(now time.Time) *Facts
	// Tell is given each alert that begins or ends, before it is kept: it may
	// come again after a crash.
	Tell func(ctx context.Context, a *Alert) error
	// Past are the alerts that another dashboard left firing; asked once, by a
	// keeper whose ledger has none. nil knows of none.
	Past func(ctx context.Context) ([]Alert, error)
	Now  func() time.Time
	Log  *slog.Logger
}

// Keeper judges, remembers and calls.
type Keeper struct {
	o Options

	mu      sync.Mutex
	state   *State
	ended   []Alert    // oldest first
	mutes   []Mute     // those that are not long over
	waiting []*Message // oldest first
	done    []Message  // oldest first
	seq     uint64
}

const (
	judgeEvery = 2 * time.Second
	keepEnded  = 2000
	keepDone   = 1000
	keepAtOnce = 400 // in one commit; the rest follows at the next tick
	maxWaiting = 2000
	maxMutes   = 500
	keepMutes  = 7 * 24 * time.Hour // after their end
)

// The ledger's keys.
const (
	liveKey   = "alert/live/"
	endedKey  = "alert/ended/"
	muteKey   = "alert/mute/"
	outKey    = "alert/out/"
	sentKey   = "alert/sent/"
	secretKey = "alert/secret/"
	bornKey   = "alert/born"
)

func pastKey(prefix string, at time.Time, id string) string {
	return fmt.Sprintf("%s%015d~%s", prefix, at.UnixMilli(), id)
}

// Open reads what a keeper remembers.
func Open(ctx context.Context, o Options) (*Keeper, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{o: o, state: NewState()}
	born := false
	now := o.Now()
	err := o.Ledger.View(func(tx *ledger.Tx) error {
		_, err := tx.Get(bornKey)
		if born = err == nil; !born && !errors.Is(err, ledger.ErrNotFound) {
			return err
		}
		return errors.Join(
			scan(tx, liveKey, func(e *entry) {
				e.Seen = now // of when the dashboard was not there nothing is known
				k.state.entries[keyOf(e.Rule, e.Target)] = e
			}),
			scan(tx, endedKey, func(a *Alert) { k.ended = append(k.ended, *a) }),
			scan(tx, muteKey, func(m *Mute) { k.mutes = append(k.mutes, *m) }),
			scan(tx, outKey, func(m *Message) { k.waiting = append(k.waiting, m) }),
			scan(tx, sentKey, func(m *Message) { k.done = append(k.done, *m) }),
		)
	})
	if err != nil {
		return nil, fmt.Errorf("read alerts: %w", err)
	}
	slices.SortFunc(k.waiting, func(a, b *Message) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID)) })
	if !born {
		return k, k.inherit(ctx, now)
	}
	return k, nil
}

// inherit takes over what another dashboard left firing. It has told of it.
func (k *Keeper) inherit(ctx context.Context, now time.Time) error {
	if k.o.Past != nil {
		past, err := k.o.Past(ctx)
		if err != nil {
			k.o.Log.Warn("alerts of the dashboard before are not known", "err", err)
		}
		for _, a := range past {
			k.state.entries[keyOf(a.Rule, a.Target)] = &entry{Alert: a, Seen: now, Told: true, touched: true}
		}
	}
	return k.keep(ctx, nil, func(tx *ledger.Tx) error { return tx.Put(bornKey, []byte("1")) })
}

func scan[T any](tx *ledger.Tx, prefix string, f func(*T)) error {
	var bad error
	err := tx.Scan(prefix, "", func(key string, text []byte) bool {
		v := new(T)
		if err := json.Unmarshal(text, v); err != nil {
			bad = fmt.Errorf("%s: %w", key, err)
			return false
		}
		f(v)
		return true
	})
	return errors.Join(err, bad)
}

func put(tx *ledger.Tx, key string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Put(key, text)
}

// String names the task.
func (k *Keeper) String() string { return "alerts" }

// Run judges and sends until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return k.judge(ctx) })
	group.Go(func() error { return k.send(ctx) })
	if err := group.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (k *Keeper) judge(ctx context.Context) error {
	tick := time.NewTicker(judgeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := k.Tick(ctx); err != nil && ctx.Err() == nil {
			// The ledger may be full for a while: what was not kept is kept at the
			// next tick.
			k.o.Log.Warn("alerts are not kept", "err", err)
		}
	}
}

// Tick judges once. Run does it every two seconds.
func (k *Keeper) Tick(ctx context.Context) error {
	now := k.o.Now()
	facts := k.o.Facts(now)
	alerts := k.o.Alerts()
	k.mu.Lock()
	changed := Step(alerts.Rules, k.state, facts)
	var over []Alert
	for i := range changed {
		if changed[i].State == Resolved {
			over = append(over, changed[i])
		}
	}
	rules := map[string]*configs.AlertRule{}
	for i := range alerts.Rules {
		rules[alerts.Rules[i].ID] = &alerts.Rules[i]
	}
	var fresh []*Message
	for key, e := range k.state.entries {
		muted := k.muted(&e.Alert, now)
		if e.Muted != muted {
			e.Muted, e.touched = muted, true
		}
		if r := rules[e.Rule]; r != nil && e.State == Firing && !e.Told && muted == "" && e.Acked == nil {
			e.Told, e.touched = true, true
			fresh = k.enqueue(alerts, r, &k.state.entries[key].Alert, now, fresh)
		}
	}
	k.mu.Unlock()
	for i := range changed {
		if err := k.o.Tell(ctx, &changed[i]); err != nil {
			k.o.Log.Warn("an alert is not in the events", "rule", changed[i].Rule, "err", err)
		}
	}
	return k.settle(ctx, alerts, rules, over, fresh, now)
}

// settle ends alerts and keeps everything.
func (k *Keeper) settle(ctx context.Context, alerts *configs.Alerts, rules map[string]*configs.AlertRule, over []Alert, fresh []*Message, now time.Time) error {
	k.mu.Lock()
	for i := range over {
		a := &over[i]
		r := rules[a.Rule]
		if r == nil {
			// The rule is gone; who was told that it fires is told that it is over.
			r = &configs.AlertRule{ID: a.Rule, Name: a.Name}
		}
		if k.muted(a, now) == "" {
			fresh = k.enqueue(alerts, r, a, now, fresh)
		}
		k.ended = append(k.ended, *a)
	}
	k.mu.Unlock()
	return k.keep(ctx, fresh, func(tx *ledger.Tx) error {
		for i := range over {
			if err := put(tx, pastKey(endedKey, over[i].ResolvedAt, over[i].ID), &over[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// keep writes what was touched, in one commit.
func (k *Keeper) keep(ctx context.Context, fresh []*Message, more func(*ledger.Tx) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	dirty := map[string][]byte{}
	for key, e := range k.state.entries {
		if !e.touched || len(dirty) >= keepAtOnce {
			continue
		}
		text, err := json.Marshal(e)
		if err != nil {
			return err
		}
		dirty[key] = text
	}
	gone := k.state.gone
	old := k.ended[:max(0, len(k.ended)-keepEnded)]
	if len(dirty)+len(gone)+len(fresh)+len(old) == 0 && more == nil {
		return nil
	}
	err := k.o.Ledger.Update(ctx, func(tx *ledger.Tx) error {
		for key, text := range dirty {
			if err := tx.Put(liveKey+key, text); err != nil {
				return err
			}
		}
		for _, key := range gone {
			if k.state.entries[key] == nil {
				if err := tx.Delete(liveKey + key); err != nil {
					return err
				}
			}
		}
		for _, m := range fresh {
			if err := put(tx, outKey+m.ID, m); err != nil {
				return err
			}
		}
		for i := range old {
			if err := tx.Delete(pastKey(endedKey, old[i].ResolvedAt, old[i].ID)); err != nil {
				return err
			}
		}
		if more != nil {
			return more(tx)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for key := range dirty {
		k.state.entries[key].touched = false
	}
	k.state.gone = nil
	k.ended = k.ended[len(old):]
	return nil
}

func (k *Keeper) muted(a *Alert, now time.Time) string {
	for i := range k.mutes {
		if k.mutes[i].Mutes(a, now) {
			return k.mutes[i].ID
		}
	}
	return ""
}

// Firing are the alerts that are pending or firing, the worst and oldest first.
func (k *Keeper) Firing() []Alert {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := k.state.Alerts()
	slices.SortStableFunc(all, func(a, b Alert) int {
		return cmp.Or(strings.Compare(a.State, b.State), b.Severity.Rank()-a.Severity.Rank(), a.Since.Compare(b.Since))
	})
	return all
}

// Ended are alerts that are over, the newest first.
func (k *Keeper) Ended() []Alert {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := slices.Clone(k.ended)
	slices.Reverse(all)
	return all
}

// Acknowledge says that somebody has taken an alert; the first one stays.
func (k *Keeper) Acknowledge(ctx context.Context, id string, ack Ack) (Alert, error) {
	k.mu.Lock()
	var found *entry
	for _, e := range k.state.entries {
		if e.ID == id && e.State != Counting {
			found = e
		}
	}
	if found == nil {
		k.mu.Unlock()
		return Alert{}, ErrNotFound
	}
	if found.Acked == nil {
		found.Acked, found.touched = &ack, true
	}
	a := found.Alert
	k.mu.Unlock()
	return a, k.keep(ctx, nil, nil)
}
