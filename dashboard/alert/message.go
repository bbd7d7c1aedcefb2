package alert

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"patronus/configs"
)

// Message is one call through one channel, with one alert or several of a
// group, and what became of it.
type Message struct {
	ID      string    `json:"id"`
	At      time.Time `json:"created_at"`
	Channel string    `json:"channel"`
	Kind    string    `json:"kind"`
	// To replaces the channel's receivers, for rules that name their own.
	To     []string `json:"to,omitempty"`
	Group  string   `json:"group"`
	Alerts []Alert  `json:"alerts"`
	// State is waiting, sent or failed.
	State    string    `json:"state"`
	Attempts int       `json:"attempts"`
	NextAt   time.Time `json:"next_at,omitzero"`
	DoneAt   time.Time `json:"done_at,omitzero"`
	Error    string    `json:"error,omitempty"`
	Test     bool      `json:"test,omitempty"`
}

// The states of a message.
const (
	Waiting = "waiting"
	Sent    = "sent"
	Failed  = "failed"
)

const (
	groupWait    = 10 * time.Second // others of the same group may join
	firstRetry   = 10 * time.Second
	longestRetry = 10 * time.Minute
	giveUpAfter  = 24 * time.Hour
	groupMost    = 200 // alerts of one message
)

// retryIn is how long to wait after a number of failed attempts.
func retryIn(attempts int) time.Duration {
	return min(longestRetry, firstRetry<<min(max(attempts-1, 0), 10))
}

// receivers are the channels that an alert of a rule goes to, and whom each of
// them tells instead of its own receivers.
func receivers(all *configs.Alerts, r *configs.AlertRule, severity configs.Severity) []Message {
	var out []Message
	add := func(c *configs.AlertChannel, to []string) {
		if c.Least.Rank() <= severity.Rank() {
			out = append(out, Message{Channel: c.Name, Kind: c.Kind, To: to})
		}
	}
	first := func(kind string) *configs.AlertChannel {
		for i := range all.Channels {
			if all.Channels[i].Kind == kind {
				return &all.Channels[i]
			}
		}
		// Told by the delivery log: somebody wanted it.
		return &configs.AlertChannel{Kind: kind}
	}
	if n := r.Notification; n != nil {
		if len(n.Email) > 0 {
			add(first(configs.Email), n.Email)
		}
		if n.Webhook != "" {
			add(first(configs.Webhook), []string{n.Webhook})
		}
		if n.Slack != nil {
			add(first(configs.Slack), []string{n.Slack.Channel})
		}
		if n.PagerDuty != nil {
			add(first(configs.PagerDuty), []string{ruleSecret(r.ID)})
		}
	}
	for i := range all.Channels {
		if c := &all.Channels[i]; slices.Contains(r.Channels, c.Name) || len(r.Channels) == 0 && r.Notification == nil {
			add(c, nil)
		}
	}
	return out
}

// ruleSecret names the PagerDuty key that came with a rule.
func ruleSecret(rule string) string { return "rule " + rule }

func group(r *configs.AlertRule, a *Alert) string {
	switch r.GroupBy {
	case "site":
		return r.ID + " " + a.Site
	case "none":
		return a.ID
	}
	return r.ID
}

// Title is a message in a line.
func (m *Message) Title() string {
	if len(m.Alerts) == 1 {
		return m.Alerts[0].Title()
	}
	firing := 0
	for i := range m.Alerts {
		if m.Alerts[i].State == Firing {
			firing++
		}
	}
	return fmt.Sprintf("%s: %d firing, %d resolved", m.Alerts[0].Name, firing, len(m.Alerts)-firing)
}

// Title is an alert in a line.
func (a *Alert) Title() string {
	word := strings.ToUpper(string(a.Severity))
	if a.State == Resolved {
		word = "RESOLVED"
	}
	return fmt.Sprintf("[%s] %s: %s", word, a.Name, a.Target)
}

// Text is an alert in a sentence.
func (a *Alert) Text() string {
	switch a.Kind {
	case configs.PathLatency:
		return fmt.Sprintf("Path %s has a latency of %.1f ms, more than %.1f ms.", a.Target, a.Value, a.Limit)
	case configs.PathLoss:
		return fmt.Sprintf("Path %s loses %.2f %%, more than %.2f %%.", a.Target, a.Value, a.Limit)
	case configs.PathDown:
		return fmt.Sprintf("Path %s is down.", a.Target)
	case configs.SiteUnreachable:
		return fmt.Sprintf("Site %s cannot be reached.", a.Target)
	}
	return fmt.Sprintf("Policy %s blocked %.0f flows.", a.Target, a.Value)
}

// Body is a message in plain text.
func (m *Message) Body() string {
	var b strings.Builder
	for i := range m.Alerts {
		a := &m.Alerts[i]
		fmt.Fprintf(&b, "%s\n%s\nSince %s", a.Title(), a.Text(), a.Since.UTC().Format(time.RFC1123))
		if a.State == Resolved {
			fmt.Fprintf(&b, ", until %s (%s)", a.ResolvedAt.UTC().Format(time.RFC1123), a.Why)
		}
		b.WriteString(".\n\n")
	}
	return b.String()
}
