package configs

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
)

// Alerts are the rules by which a dashboard calls for a person, and the ways by
// which it does. Sites do not get them.
type Alerts struct {
	Rules    []AlertRule    `yaml:"rules" json:"rules,omitempty"`
	Channels []AlertChannel `yaml:"channels" json:"channels,omitempty"`
	// Private are the private networks that channels may be in; others of
	// RFC 1918, RFC 4193, RFC 6598 and loopback are not dialled.
	Private []netip.Prefix `yaml:"private" json:"private,omitempty"`
}

// AlertKind is what a rule watches.
type AlertKind string

// The kinds.
const (
	PathLatency     AlertKind = "PathLatency"
	PathLoss        AlertKind = "PathLoss"
	PathDown        AlertKind = "PathDown"
	SiteUnreachable AlertKind = "SiteUnreachable"
	PolicyViolation AlertKind = "PolicyViolation"
)

// Severity is how much an alert matters.
type Severity string

// The severities. They are written in any case.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// UnmarshalText reads a severity in any case, or none.
func (s *Severity) UnmarshalText(text []byte) error {
	switch v := Severity(strings.ToLower(string(text))); v {
	case "", Info, Warning, Critical:
		*s = v
		return nil
	}
	return errors.New("is none of info, warning, critical")
}

// Rank orders severities, the worst highest.
func (s Severity) Rank() int { return slices.Index([]Severity{Info, Warning, Critical}, s) }

// AlertRule is one rule. Each path, site or policy that it is about fires on
// its own.
type AlertRule struct {
	// ID names the rule for ever; made of the name if it is not given.
	ID        string         `yaml:"id" json:"id,omitempty"`
	Name      string         `yaml:"name" json:"name"`
	Enabled   *bool          `yaml:"enabled" json:"enabled,omitempty"` // nil is true
	Condition AlertCondition `yaml:"condition" json:"condition"`
	Severity  Severity       `yaml:"severity" json:"severity"`
	// For is how long the condition must hold before the rule fires: another
	// way to write the condition's duration.
	For Duration `yaml:"for" json:"for,omitempty"`
	// ClearFor is how long it must not hold before the alert ends; 0 is a minute.
	ClearFor Duration `yaml:"clear_for" json:"clear_for,omitempty"`
	// ClearBelow is the value under which a threshold's alert may end; 0 is nine
	// tenths of the threshold. Between the two nothing changes.
	ClearBelow float64 `yaml:"clear_below" json:"clear_below,omitempty"`
	// GroupBy says which alerts share a message: rule, site or none; "" is rule.
	GroupBy string `yaml:"group_by" json:"group_by,omitempty"`
	// Channels are told by name; empty with an empty Notification: all of them.
	Channels     []string      `yaml:"channels" json:"channels,omitempty"`
	Notification *Notification `yaml:"notification" json:"notification,omitempty"`
}

// AlertCondition is what a rule asks. Ids may have * for any run of characters;
// empty ones are all.
type AlertCondition struct {
	Type         AlertKind `yaml:"type" json:"type"`
	PathID       string    `yaml:"path_id" json:"path_id,omitempty"`
	SiteID       string    `yaml:"site_id" json:"site_id,omitempty"`
	PolicyID     string    `yaml:"policy_id" json:"policy_id,omitempty"`
	ThresholdMs  float64   `yaml:"threshold_ms" json:"threshold_ms,omitempty"`
	ThresholdPct float64   `yaml:"threshold_pct" json:"threshold_pct,omitempty"`
	Duration     Duration  `yaml:"duration" json:"duration,omitempty"`
	Count        uint64    `yaml:"count" json:"count,omitempty"`
	Window       Duration  `yaml:"window" json:"window,omitempty"`
}

// Notification names receivers in the rule itself. They are reached by the
// first channel of their kind, which has the server and the secret.
type Notification struct {
	Email     []string         `yaml:"email" json:"email,omitempty"`
	Webhook   string           `yaml:"webhook" json:"webhook,omitempty"`
	Slack     *SlackTarget     `yaml:"slack" json:"slack,omitempty"`
	PagerDuty *PagerDutyTarget `yaml:"pagerduty" json:"pagerduty,omitempty"`
}

// SlackTarget is a Slack channel.
type SlackTarget struct {
	Channel string `yaml:"channel" json:"channel"`
}

// PagerDutyTarget is a service. Its key is a secret: it is taken out of what is
// kept when a rule is written.
type PagerDutyTarget struct {
	ServiceKey string `yaml:"service_key" json:"service_key,omitempty"`
}

// AlertChannel is one way to tell people. Its secret is kept apart, and cannot
// be read again: the password of e-mail, the signing key of a webhook, the URL
// of Slack, the integration key of PagerDuty.
type AlertChannel struct {
	Name string `yaml:"name" json:"name"`
	Kind string `yaml:"kind" json:"kind"` // email, webhook, slack or pagerduty
	// Least is the severity below which this channel is not told; "" is info.
	Least Severity `yaml:"least" json:"least,omitempty"`
	// URL of a webhook; of pagerduty, another region's or a proxy.
	URL string `yaml:"url" json:"url,omitempty"`
	// Server is host:port of SMTP, which must offer STARTTLS.
	Server string   `yaml:"server" json:"server,omitempty"`
	User   string   `yaml:"user" json:"user,omitempty"`
	From   string   `yaml:"from" json:"from,omitempty"`
	To     []string `yaml:"to" json:"to,omitempty"`
	// Authority is a certificate, PEM, to trust instead of the system's.
	Authority string `yaml:"authority" json:"authority,omitempty"`
}

// The channels' kinds.
const (
	Email     = "email"
	Webhook   = "webhook"
	Slack     = "slack"
	PagerDuty = "pagerduty"
)

// DefaultAlerts is what holds until somebody writes rules: a path that is down
// for 30 s, and a site of which nothing has been heard for a minute.
func DefaultAlerts() *Alerts {
	return &Alerts{Rules: []AlertRule{
		{ID: "path-down", Name: "Path down", Severity: Critical, Condition: AlertCondition{Type: PathDown, Duration: Duration(30 * time.Second)}},
		{ID: "site-unreachable", Name: "Site unreachable", Severity: Critical, Condition: AlertCondition{Type: SiteUnreachable, Duration: Duration(time.Minute)}},
	}}
}

// Alerting is what alerts of a network hold: its own, or the defaults. Borrowed.
func (n *Network) Alerting() *Alerts {
	if n.Alerts != nil {
		return n.Alerts
	}
	return DefaultAlerts()
}

// Active reports whether the rule is evaluated.
func (r *AlertRule) Active() bool { return r.Enabled == nil || *r.Enabled }

// Hold is how long the condition must hold.
func (r *AlertRule) Hold() time.Duration { return time.Duration(max(r.For, r.Condition.Duration)) }

// Calm is how long it must not hold.
func (r *AlertRule) Calm() time.Duration {
	if r.ClearFor == 0 {
		return time.Minute
	}
	return time.Duration(r.ClearFor)
}

// Threshold is the value above which the condition holds, and the one under
// which it ends; of conditions that are just true or not 0.5 and 0.5.
func (r *AlertRule) Threshold() (over, under float64) {
	switch r.Condition.Type {
	case PathLatency:
		over = r.Condition.ThresholdMs
	case PathLoss:
		over = r.Condition.ThresholdPct
	case PolicyViolation:
		// The count itself is too many already.
		return float64(r.Condition.Count) - 0.5, float64(r.Condition.Count) - 0.5
	default:
		return 0.5, 0.5
	}
	under = r.ClearBelow
	if under == 0 {
		under = 0.9 * over
	}
	return over, under
}

// Matches reports whether a pattern of a condition has an id.
func (AlertCondition) Matches(pattern, id string) bool {
	if pattern == "" {
		return true
	}
	ok, err := path.Match(pattern, id)
	return err == nil && ok
}

// Bounds of what alerts hold.
const (
	maxAlertRules    = 500
	maxAlertChannels = 50
	maxAlertSpan     = Duration(24 * time.Hour)
)

// Validate checks rules and channels; every problem is a *FieldError, joined.
func (a *Alerts) Validate() error {
	var p alertProblems
	if len(a.Rules) > maxAlertRules {
		p.add("rules", "", fmt.Sprintf("are more than %d", maxAlertRules))
	}
	if len(a.Channels) > maxAlertChannels {
		p.add("channels", "", fmt.Sprintf("are more than %d", maxAlertChannels))
	}
	names := map[string]bool{}
	for i := range a.Channels {
		at := fmt.Sprintf("channels[%d]", i)
		a.Channels[i].check(&p, at)
		if names[a.Channels[i].Name] {
			p.add(at+".name", a.Channels[i].Name, "is taken")
		}
		names[a.Channels[i].Name] = true
	}
	ids := map[string]bool{}
	for i := range a.Rules {
		at, r := fmt.Sprintf("rules[%d]", i), &a.Rules[i]
		p.join(r.Validate(at))
		if ids[r.ID] {
			p.add(at+".id", r.ID, "is taken")
		}
		ids[r.ID] = true
		for k, c := range r.Channels {
			if !names[c] {
				p.add(fmt.Sprintf("%s.channels[%d]", at, k), c, "is no channel")
			}
		}
	}
	for i, n := range a.Private {
		if !n.IsValid() || n != n.Masked() {
			p.add(fmt.Sprintf("private[%d]", i), n.String(), "is no network such as 10.1.0.0/16")
		}
	}
	return errors.Join(p...)
}

type alertProblems []error

func (p *alertProblems) add(at, value, why string) {
	if len(*p) < maxProblems {
		*p = append(*p, &FieldError{Path: at, Value: value, Why: why})
	}
}

func (p *alertProblems) join(err error) {
	if err != nil {
		*p = append(*p, err)
	}
}

// AlertID makes an id of a rule's name: "High Latency - HQ" is high-latency-hq.
func AlertID(name string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			b.WriteRune(c)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	id := b.String()
	return strings.TrimRight(id[:min(len(id), 63)], "-")
}

func alertName(s string) bool { return s != "" && s == AlertID(s) }

// line reports whether a text is short and on one line, as names and addresses
// are that end up in the head of a message.
func line(s string, most int) bool {
	return len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd })
}

// Validate checks one rule whose fields are named after at.
func (r *AlertRule) Validate(at string) error {
	var p alertProblems
	if !alertName(r.ID) {
		p.add(at+".id", r.ID, "must be lower-case letters, digits and single hyphens, at most 63")
	}
	if r.Name == "" || !line(r.Name, 200) {
		p.add(at+".name", "", "must be 1 to 200 characters on one line")
	}
	if r.Severity.Rank() < 0 {
		p.add(at+".severity", string(r.Severity), "is none of info, warning, critical")
	}
	if r.For != 0 && r.Condition.Duration != 0 && r.For != r.Condition.Duration {
		p.add(at+".for", r.For.String(), "contradicts condition.duration")
	}
	for _, d := range []struct {
		name string
		v    Duration
	}{{"for", r.For}, {"clear_for", r.ClearFor}, {"condition.duration", r.Condition.Duration}, {"condition.window", r.Condition.Window}} {
		if d.v < 0 || d.v > maxAlertSpan {
			p.add(at+"."+d.name, d.v.String(), "must be within 24h")
		}
	}
	switch r.GroupBy {
	case "", "rule", "site", "none":
	default:
		p.add(at+".group_by", r.GroupBy, "is none of rule, site, none")
	}
	r.Condition.check(&p, at+".condition")
	if over, under := r.Threshold(); math.IsNaN(r.ClearBelow) || r.ClearBelow < 0 || under > over {
		p.add(at+".clear_below", "", "must be from 0 to the threshold")
	}
	if n := r.Notification; n != nil {
		n.check(&p, at+".notification")
	}
	return errors.Join(p...)
}

func (c *AlertCondition) check(p *alertProblems, at string) {
	type field struct {
		name string
		set  bool
		of   []AlertKind
	}
	paths := []AlertKind{PathLatency, PathLoss, PathDown}
	for _, f := range []field{
		{"path_id", c.PathID != "", paths},
		{"site_id", c.SiteID != "", append(paths, SiteUnreachable, PolicyViolation)},
		{"policy_id", c.PolicyID != "", []AlertKind{PolicyViolation}},
		{"threshold_ms", c.ThresholdMs != 0, []AlertKind{PathLatency}},
		{"threshold_pct", c.ThresholdPct != 0, []AlertKind{PathLoss}},
		{"count", c.Count != 0, []AlertKind{PolicyViolation}},
		{"window", c.Window != 0, []AlertKind{PolicyViolation}},
	} {
		if f.set && !slices.Contains(f.of, c.Type) {
			p.add(at+"."+f.name, "", fmt.Sprintf("is no field of %s", c.Type))
		}
	}
	for _, s := range []struct{ name, v string }{{"path_id", c.PathID}, {"site_id", c.SiteID}, {"policy_id", c.PolicyID}} {
		if _, err := path.Match(s.v, ""); err != nil || !line(s.v, 300) {
			p.add(at+"."+s.name, "", "is no id or pattern")
		}
	}
	switch c.Type {
	case PathLatency:
		if !(c.ThresholdMs > 0 && c.ThresholdMs <= 60_000) {
			p.add(at+".threshold_ms", "", "must be above 0 and at most 60000")
		}
	case PathLoss:
		if !(c.ThresholdPct > 0 && c.ThresholdPct < 100) {
			p.add(at+".threshold_pct", "", "must be above 0 and below 100")
		}
	case PathDown, SiteUnreachable:
	case PolicyViolation:
		if c.Count == 0 || c.Count > 1_000_000 {
			p.add(at+".count", "", "must be from 1 to 1000000")
		}
		if c.Window < Duration(10*time.Second) {
			p.add(at+".window", c.Window.String(), "must be 10s to 24h")
		}
	default:
		p.add(at+".type", string(c.Type), "is none of PathLatency, PathLoss, PathDown, SiteUnreachable, PolicyViolation")
	}
}

func address(s string) bool {
	user, host, ok := strings.Cut(s, "@")
	return ok && user != "" && host != "" && line(s, 254) && !strings.ContainsAny(s, " <>,;\"\\") && !strings.Contains(host, "@")
}

func webURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil && line(s, 2000)
}

func (n *Notification) check(p *alertProblems, at string) {
	if len(n.Email) > 50 {
		p.add(at+".email", "", "are more than 50")
	}
	for i, e := range n.Email {
		if !address(e) {
			p.add(fmt.Sprintf("%s.email[%d]", at, i), "", "is no e-mail address")
		}
	}
	if n.Webhook != "" && !webURL(n.Webhook) {
		p.add(at+".webhook", "", "must be an https URL")
	}
	if n.Slack != nil && (n.Slack.Channel == "" || !line(n.Slack.Channel, 80)) {
		p.add(at+".slack.channel", "", "must be a channel such as #alerts")
	}
	if n.PagerDuty != nil && !line(n.PagerDuty.ServiceKey, 200) {
		p.add(at+".pagerduty.service_key", "", "is no key")
	}
}

func (c *AlertChannel) check(p *alertProblems, at string) {
	if !alertName(c.Name) {
		p.add(at+".name", c.Name, "must be lower-case letters, digits and single hyphens, at most 63")
	}
	if c.Least != "" && c.Least.Rank() < 0 {
		p.add(at+".least", string(c.Least), "is none of info, warning, critical")
	}
	switch c.Kind {
	case Email:
		host, port, ok := strings.Cut(c.Server, ":")
		if !ok || host == "" || port == "" || !line(c.Server, 260) {
			p.add(at+".server", "", "must be host:port, as smtp.example.com:587")
		}
		if !address(c.From) {
			p.add(at+".from", "", "is no e-mail address")
		}
		if len(c.To) > 50 {
			p.add(at+".to", "", "are more than 50")
		}
		for i, e := range c.To {
			if !address(e) {
				p.add(fmt.Sprintf("%s.to[%d]", at, i), "", "is no e-mail address")
			}
		}
		if !line(c.User, 254) {
			p.add(at+".user", "", "is no user name")
		}
	case Webhook:
		if !webURL(c.URL) {
			p.add(at+".url", "", "must be an https URL")
		}
	case Slack, PagerDuty:
		if c.Kind == PagerDuty && c.URL != "" && !webURL(c.URL) {
			p.add(at+".url", "", "must be an https URL")
		}
		if c.Kind == Slack && c.URL != "" {
			p.add(at+".url", "", "is the channel's secret with Slack: write it as secret")
		}
	default:
		p.add(at+".kind", c.Kind, "is none of email, webhook, slack, pagerduty")
	}
	if len(c.Authority) > 16<<10 {
		p.add(at+".authority", "", "is too large")
	}
}
