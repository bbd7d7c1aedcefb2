package alert

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"patronus/appliance/ledger"
	"patronus/configs"
)

// enqueue adds messages of one alert, or the alert to messages that wait for
// others of their group. Called with mu held; what is new or changed is
// appended to fresh.
func (k *Keeper) enqueue(all *configs.Alerts, r *configs.AlertRule, a *Alert, now time.Time, fresh []*Message) []*Message {
	for _, to := range receivers(all, r, a.Severity) {
		to.Group = group(r, a)
		if m := k.joinable(&to, now); m != nil {
			m.Alerts = append(m.Alerts, *a)
			if !slices.Contains(fresh, m) {
				fresh = append(fresh, m)
			}
			continue
		}
		if len(k.waiting) >= maxWaiting {
			k.o.Log.Warn("too many messages wait: an alert is not sent", "rule", r.ID)
			continue
		}
		m := to
		m.ID, m.At, m.State, m.Alerts, m.NextAt = k.messageID(now), now, Waiting, []Alert{*a}, now.Add(groupWait)
		k.waiting = append(k.waiting, &m)
		fresh = append(fresh, &m)
	}
	return fresh
}

func (k *Keeper) messageID(now time.Time) string {
	k.seq++
	return fmt.Sprintf("m%013d-%d", now.UnixMilli(), k.seq)
}

func (k *Keeper) joinable(to *Message, now time.Time) *Message {
	for _, m := range k.waiting {
		if m.Channel == to.Channel && m.Kind == to.Kind && m.Group == to.Group && slices.Equal(m.To, to.To) &&
			m.Attempts == 0 && m.NextAt.After(now) && len(m.Alerts) < groupMost {
			return m
		}
	}
	return nil
}

// send sends what is due, each second.
func (k *Keeper) send(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := k.Flush(ctx); err != nil && ctx.Err() == nil {
			k.o.Log.Warn("deliveries are not kept", "err", err)
		}
	}
}

// Flush sends what is due now, and notes what became of it.
func (k *Keeper) Flush(ctx context.Context) error {
	now := k.o.Now()
	k.mu.Lock()
	var due []Message
	for _, m := range k.waiting {
		if !m.NextAt.After(now) {
			due = append(due, *m)
		}
	}
	k.mu.Unlock()
	if len(due) == 0 {
		return nil
	}
	alerts := k.o.Alerts()
	var group errgroup.Group
	group.SetLimit(4)
	for i := range due {
		group.Go(func() error {
			err := k.try(ctx, alerts, &due[i])
			if ctx.Err() != nil {
				due[i].State = "" // it was not the receiver who failed
				return nil
			}
			due[i].outcome(err, k.o.Now())
			return nil
		})
	}
	_ = group.Wait() // nothing fails
	return k.note(context.WithoutCancel(ctx), due)
}

// outcome notes an attempt.
func (m *Message) outcome(err error, now time.Time) {
	m.Attempts++
	m.Error = ""
	if err == nil {
		m.State, m.DoneAt, m.NextAt = Sent, now, time.Time{}
		return
	}
	m.Error = strings.ToValidUTF8(err.Error()[:min(len(err.Error()), 300)], "")
	if errors.Is(err, errPermanent) || m.Test || now.Sub(m.At) > giveUpAfter {
		m.State, m.DoneAt, m.NextAt = Failed, now, time.Time{}
		return
	}
	m.NextAt = now.Add(retryIn(m.Attempts))
}

func (k *Keeper) try(ctx context.Context, alerts *configs.Alerts, m *Message) error {
	var channel *configs.AlertChannel
	for i := range alerts.Channels {
		if alerts.Channels[i].Name == m.Channel {
			channel = &alerts.Channels[i]
		}
	}
	name := m.Channel
	if m.Kind == configs.PagerDuty && len(m.To) > 0 {
		// A rule's own key needs no channel.
		name = m.To[0]
		if channel == nil {
			channel = &configs.AlertChannel{Kind: configs.PagerDuty}
		}
	}
	if channel == nil || channel.Kind != m.Kind {
		return errNoChannel
	}
	secret, err := k.secret(name)
	if err != nil {
		return err
	}
	return deliver(ctx, channel, alerts.Private, secret, m, k.o.Now())
}

// note keeps the outcomes.
func (k *Keeper) note(ctx context.Context, tried []Message) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range tried {
		m := &tried[i]
		if m.State == "" {
			continue
		}
		at := slices.IndexFunc(k.waiting, func(w *Message) bool { return w.ID == m.ID })
		if at < 0 {
			continue
		}
		if m.State == Waiting {
			*k.waiting[at] = *m
			continue
		}
		k.waiting = slices.Delete(k.waiting, at, at+1)
		k.done = append(k.done, *m)
	}
	old := k.done[:max(0, len(k.done)-keepDone)]
	err := k.o.Ledger.Update(ctx, func(tx *ledger.Tx) error {
		for i := range tried {
			m := &tried[i]
			switch m.State {
			case "":
				continue
			case Waiting:
				if err := put(tx, outKey+m.ID, m); err != nil {
					return err
				}
				continue
			}
			if err := errors.Join(tx.Delete(outKey+m.ID), put(tx, pastKey(sentKey, m.DoneAt, m.ID), m)); err != nil {
				return err
			}
		}
		for i := range old {
			if err := tx.Delete(pastKey(sentKey, old[i].DoneAt, old[i].ID)); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		k.done = k.done[len(old):]
	}
	return err
}

// Deliveries are messages that wait, and those that were sent or given up, the
// newest first.
func (k *Keeper) Deliveries() []Message {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := slices.Clone(k.done)
	for _, m := range k.waiting {
		w := *m
		w.Alerts = slices.Clone(m.Alerts)
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b Message) int { return b.At.Compare(a.At) })
	return all
}

// Test sends one made-up alert through a channel, now, and says what became of
// it; it is in the delivery log too.
func (k *Keeper) Test(ctx context.Context, channel string) (Message, error) {
	alerts, now := k.o.Alerts(), k.o.Now()
	at := slices.IndexFunc(alerts.Channels, func(c configs.AlertChannel) bool { return c.Name == channel })
	if at < 0 {
		return Message{}, ErrNotFound
	}
	k.mu.Lock()
	m := Message{
		ID: k.messageID(now), At: now, Channel: channel, Kind: alerts.Channels[at].Kind, Group: "test", Test: true, State: Waiting,
		Alerts: []Alert{{
			ID: "test", Rule: "test", Name: "Test of " + channel, Kind: configs.PathDown, Severity: configs.Info, Target: "no.path~at.all", State: Firing,
			Since: now, FiredAt: now, Value: 1, Limit: 0.5,
		}},
		NextAt: now.Add(time.Hour),
	}
	waits := m
	k.waiting = append(k.waiting, &waits)
	k.mu.Unlock()
	m.outcome(k.try(ctx, alerts, &m), k.o.Now())
	return m, k.note(context.WithoutCancel(ctx), []Message{m})
}

// secret reads a channel's secret, "" if it has none.
func (k *Keeper) secret(channel string) (secret string, err error) {
	err = k.o.Ledger.View(func(tx *ledger.Tx) error {
		text, err := tx.Get(secretKey + channel)
		if errors.Is(err, ledger.ErrNotFound) {
			return nil
		}
		secret = string(text)
		return err
	})
	return secret, err
}

// HasSecret reports whether a channel has its secret; there is no way to read it.
func (k *Keeper) HasSecret(channel string) bool {
	s, err := k.secret(channel)
	return err == nil && s != ""
}

// SetSecret keeps a channel's secret; "" forgets it.
func (k *Keeper) SetSecret(ctx context.Context, channel, secret string) error {
	return k.o.Ledger.Update(ctx, func(tx *ledger.Tx) error {
		if secret == "" {
			return tx.Delete(secretKey + channel)
		}
		return tx.Put(secretKey+channel, []byte(secret))
	})
}

// SetRuleKey keeps the PagerDuty key that came with a rule.
func (k *Keeper) SetRuleKey(ctx context.Context, rule, key string) error {
	return k.SetSecret(ctx, ruleSecret(rule), key)
}

// Mutes are the silences and windows that are not long over, the newest first.
func (k *Keeper) Mutes() []Mute {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := slices.Clone(k.mutes)
	slices.SortFunc(all, func(a, b Mute) int { return b.From.Compare(a.From) })
	return all
}

// AddMute keeps a mute, which gets an id, and its audit record.
func (k *Keeper) AddMute(ctx context.Context, m Mute, audit ledger.AuditRecord) (Mute, error) {
	now := k.o.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	over := func(m Mute) bool { return now.Sub(m.Until) > keepMutes }
	kept := slices.DeleteFunc(slices.Clone(k.mutes), over)
	if len(kept) >= maxMutes {
		return m, ErrMany
	}
	m.ID = k.messageID(now)
	m.ID = "q" + m.ID[1:]
	audit.ResourceID = m.ID
	err := k.o.Ledger.Update(ctx, func(tx *ledger.Tx) error {
		for i := range k.mutes {
			if over(k.mutes[i]) {
				if err := tx.Delete(muteKey + k.mutes[i].ID); err != nil {
					return err
				}
			}
		}
		return errors.Join(put(tx, muteKey+m.ID, &m), tx.Audit(audit))
	})
	if err == nil {
		k.mutes = append(kept, m)
	}
	return m, err
}

// EndMute ends a mute now, with its audit record.
func (k *Keeper) EndMute(ctx context.Context, kind, id string, audit ledger.AuditRecord) (Mute, error) {
	now := k.o.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	at := slices.IndexFunc(k.mutes, func(m Mute) bool { return m.ID == id && m.Kind == kind })
	if at < 0 {
		return Mute{}, ErrNotFound
	}
	m := k.mutes[at]
	if m.Until.After(now) {
		m.Until = now
		m.From = minTime(m.From, now)
	}
	err := k.o.Ledger.Update(ctx, func(tx *ledger.Tx) error { return errors.Join(put(tx, muteKey+m.ID, &m), tx.Audit(audit)) })
	if err == nil {
		k.mutes[at] = m
	}
	return m, err
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
