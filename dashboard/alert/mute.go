package alert

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"patronus/configs"
)

// Mute keeps alerts from calling anybody for a time: a silence, which somebody
// makes of an alert, or a maintenance window, which is planned. The alerts are
// still shown.
type Mute struct {
	ID string `json:"id"`
	// Kind is silence or maintenance.
	Kind string `json:"kind"`
	// What is muted: patterns with *, empty for any.
	Rule   string `json:"rule_id,omitempty"`
	Site   string `json:"site_id,omitempty"`
	Target string `json:"target,omitempty"`
	// Most is the greatest severity that is muted; "" is critical.
	Most configs.Severity `json:"most,omitempty"`

	From    time.Time `json:"from"`
	Until   time.Time `json:"until"`
	Comment string    `json:"comment"`
	By      string    `json:"by"`
}

// The kinds of mutes.
const (
	Silence     = "silence"
	Maintenance = "maintenance"
)

// maxMute is how long a mute may last.
const maxMute = 31 * 24 * time.Hour

// Validate returns a *configs.FieldError for what is wrong.
func (m *Mute) Validate() error {
	field := func(at, why string) error { return &configs.FieldError{Path: at, Why: why} }
	for _, s := range []struct{ at, v string }{{"rule_id", m.Rule}, {"site_id", m.Site}, {"target", m.Target}, {"comment", m.Comment}} {
		if len(s.v) > 300 || strings.ContainsFunc(s.v, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return field(s.at, "must be one line of at most 300 bytes")
		}
	}
	switch {
	case m.Kind != Silence && m.Kind != Maintenance:
		return field("kind", "is neither silence nor maintenance")
	case m.Most != "" && m.Most.Rank() < 0:
		return field("most", "is none of info, warning, critical")
	case !m.From.Before(m.Until):
		return field("until", "must be after from")
	case m.Until.Sub(m.From) > maxMute:
		return field("until", fmt.Sprintf("must be within %d days of from", maxMute/(24*time.Hour)))
	case m.Comment == "":
		return field("comment", "is missing: say why, for who comes after you")
	}
	return nil
}

// Mutes reports whether the mute holds for an alert at a time. A path is muted
// by the site at either end.
func (m *Mute) Mutes(a *Alert, now time.Time) bool {
	if now.Before(m.From) || !now.Before(m.Until) || m.Most != "" && a.Severity.Rank() > m.Most.Rank() {
		return false
	}
	var c configs.AlertCondition
	return c.Matches(m.Rule, a.Rule) && c.Matches(m.Target, a.Target) &&
		(m.Site == "" || slices.ContainsFunc(sitesOf(a), func(s string) bool { return c.Matches(m.Site, s) }))
}

// sitesOf are the sites that an alert concerns: of a path, both.
func sitesOf(a *Alert) []string {
	sites := []string{a.Site}
	switch a.Kind {
	case configs.PathDown, configs.PathLatency, configs.PathLoss:
		if _, far, ok := strings.Cut(a.Target, "~"); ok {
			name, _, _ := strings.Cut(far, ".")
			sites = append(sites, name)
		}
	}
	return sites
}
