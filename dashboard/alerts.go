package dashboard

import (
	"context"
	"net/http"
	"slices"
	"time"

	"patronus/appliance/ledger"
	"patronus/configs"
	"patronus/dashboard/alert"
	"patronus/dashboard/auth"
)

// Alerts call people; *alert.Keeper is most of one, the rest is history's.
type Alerts interface {
	Firing() []alert.Alert // and pending
	Ended() []alert.Alert  // newest first
	Acknowledge(ctx context.Context, id string, ack alert.Ack) (alert.Alert, error)
	Deliveries() []alert.Message
	Test(ctx context.Context, channel string) (alert.Message, error)
	Mutes() []alert.Mute
	AddMute(ctx context.Context, m alert.Mute, audit ledger.AuditRecord) (alert.Mute, error)
	EndMute(ctx context.Context, kind, id string, audit ledger.AuditRecord) (alert.Mute, error)
	HasSecret(channel string) bool
	SetSecret(ctx context.Context, channel, secret string) error
	SetRuleKey(ctx context.Context, rule, key string) error
	Backtest(ctx context.Context, r configs.AlertRule, from, to time.Time) (alert.Trial, error)
}

// AckBody is what is said with an acknowledgement.
type AckBody struct {
	Note string `json:"note,omitempty"`
}

// MuteBody makes a silence or a maintenance window.
type MuteBody struct {
	Rule string           `json:"rule_id,omitempty"`
	Site string           `json:"site_id,omitempty"`
	Goal string           `json:"target,omitempty"`
	Most configs.Severity `json:"most,omitempty"`
	// From is now if it is absent; Until, or Minutes after From.
	From    time.Time `json:"from,omitzero"`
	Until   time.Time `json:"until,omitzero"`
	Minutes int       `json:"minutes,omitempty"`
	Comment string    `json:"comment"`
}

func alertRoutes() []Route {
	rows := []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/alerts", Name: "listAlerts", Access: needs(auth.ViewEvents), Status: 200,
			Doc: "List the alerts that are pending or firing, or those that are over, the newest first.", Answer: Page[alert.Alert]{},
			Query: []Param{
				{"state", "string", "firing (and pending; the default), resolved"}, {"severity", "string", "info, warning or critical"},
				{"site", "string", "site id"}, {"rule", "string", "rule id"}, {"limit", "integer", "1 to 1000; default 200"},
			},
			handle: (*Server).listAlerts,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/alerts/:id/acknowledge", Name: "acknowledgeAlert", Access: needs(auth.ManageAlerts), Status: 200,
			Doc: "Say that somebody has taken an alert: nobody is called for it any more.", Body: AckBody{}, Answer: alert.Alert{}, handle: (*Server).acknowledgeAlert,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/alerts/deliveries", Name: "listDeliveries", Access: fabric(auth.ViewEvents), Status: 200,
			Doc: "List the messages that wait, were sent or were given up, the newest first.", Answer: Page[alert.Message]{},
			Query: []Param{{"limit", "integer", "1 to 1000; default 200"}}, handle: (*Server).listDeliveries,
		},
	}
	for _, m := range []struct{ kind, path, one, doc string }{
		{alert.Silence, "silences", "Silence", "a silence"}, {alert.Maintenance, "maintenance", "Maintenance", "a maintenance window"},
	} {
		rows = append(rows,
			Route{
				Method: http.MethodGet, Path: "/api/v1/alerts/" + m.path, Name: "list" + m.one, Access: fabric(auth.ViewEvents), Status: 200,
				Doc: "List each " + m.doc[2:] + " of the last week and to come, the newest first.", Answer: Page[alert.Mute]{},
				handle: func(s *Server, r *request) error { return s.listMutes(r, m.kind) },
			},
			Route{
				Method: http.MethodPost, Path: "/api/v1/alerts/" + m.path, Name: "create" + m.one, Access: fabric(auth.ManageAlerts), Status: 201, Create: true,
				Doc: "Begin or plan " + m.doc + ": its alerts are shown, and call nobody.", Body: MuteBody{}, Answer: alert.Mute{},
				handle: func(s *Server, r *request) error { return s.createMute(r, m.kind) },
			},
			Route{
				Method: http.MethodPost, Path: "/api/v1/alerts/" + m.path + "/:id/end", Name: "end" + m.one, Access: fabric(auth.ManageAlerts), Status: 200,
				Doc: "End " + m.doc + " now.", Answer: alert.Mute{},
				handle: func(s *Server, r *request) error { return s.endMute(r, m.kind) },
			})
	}
	return rows
}

// firsts is the beginning of a list as a page with the total.
func firsts[T any](r *request, list []T) error {
	limit, err := r.number("limit", 200, 1, 1000)
	if err != nil {
		return err
	}
	n := len(list)
	out := Page[T]{Items: []T{}, Total: &n}
	out.Items = append(out.Items, list[:min(limit, n)]...)
	return r.answer(http.StatusOK, out)
}

func (s *Server) listAlerts(r *request) error {
	if s.o.Alerts == nil {
		return ErrUnavailable
	}
	v, err := s.view(r.UserContext())
	if err != nil {
		return err
	}
	var list []alert.Alert
	switch r.Query("state") {
	case "", "firing":
		list = s.o.Alerts.Firing()
	case "resolved":
		list = s.o.Alerts.Ended()
	default:
		return invalid("state", "is neither firing nor resolved")
	}
	severity, site, rule := r.Query("severity"), r.Query("site"), r.Query("rule")
	list = slices.DeleteFunc(list, func(a alert.Alert) bool {
		return !v.sees(&r.actor, a.Site) || severity != "" && string(a.Severity) != severity || site != "" && a.Site != site || rule != "" && a.Rule != rule
	})
	return firsts(r, list)
}

func (s *Server) acknowledgeAlert(r *request) error {
	if s.o.Alerts == nil {
		return ErrUnavailable
	}
	var b AckBody
	if len(r.Body()) > 0 {
		if err := r.body(&b); err != nil {
			return err
		}
	}
	if len(b.Note) > 500 {
		return invalid("note", "is longer than 500 bytes")
	}
	v, err := s.view(r.UserContext())
	if err != nil {
		return err
	}
	id := r.Params("id")
	at := slices.IndexFunc(s.o.Alerts.Firing(), func(a alert.Alert) bool { return a.ID == id && v.sees(&r.actor, a.Site) })
	if at < 0 {
		return notFound("alert", id)
	}
	a, err := s.o.Alerts.Acknowledge(r.UserContext(), id, alert.Ack{By: r.actor.User, At: r.now.UTC(), Note: plain(b.Note)})
	if err := s.audit(r, "acknowledge_alert", "alert", id, nil, nil, err); err != nil {
		return err
	}
	return r.answer(http.StatusOK, a)
}

func (s *Server) listDeliveries(r *request) error {
	if s.o.Alerts == nil {
		return ErrUnavailable
	}
	list := s.o.Alerts.Deliveries()
	for i := range list {
		// A rule's own key is named here, not told.
		if list[i].Kind == configs.PagerDuty {
			list[i].To = nil
		}
	}
	return firsts(r, list)
}

func (s *Server) listMutes(r *request, kind string) error {
	if s.o.Alerts == nil {
		return ErrUnavailable
	}
	return firsts(r, slices.DeleteFunc(s.o.Alerts.Mutes(), func(m alert.Mute) bool { return m.Kind != kind }))
}

func (s *Server) createMute(r *request, kind string) error {
	if s.o.Alerts == nil {
		return ErrUnavailable
	}
	var b MuteBody
	if err := r.body(&b); err != nil {
		return err
	}
	m := alert.Mute{Kind: kind, Rule: b.Rule, Site: b.Site, Target: b.Goal, Most: b.Most, From: b.From.UTC(), Until: b.Until.UTC(), Comment: b.Comment, By: r.actor.User}
	if b.From.IsZero() {
		m.From = r.now.UTC()
	}
	if b.Minutes != 0 {
		if !b.Until.IsZero() || b.Minutes < 0 || b.Minutes > 60*24*31 {
			return invalid("minutes", "must be 1 to 44640, and stands for until")
		}
		m.Until = m.From.Add(time.Duration(b.Minutes) * time.Minute)
	}
	if err := m.Validate(); err != nil {
		return err
	}
	if m.Rule == "" && m.Site == "" && m.Target == "" && kind == alert.Silence {
		return invalid("rule_id", "or site_id or target must say what is silenced")
	}
	m, err := s.o.Alerts.AddMute(r.UserContext(), m, s.auditRecord(r, "create_"+kind, kind, ""))
	if err != nil {
		return err
	}
	return r.answer(http.StatusCreated, m)
}

func (s *Server) endMute(r *request, kind string) error {
	if s.o.Alerts == nil {
		return ErrUnavailable
	}
	m, err := s.o.Alerts.EndMute(r.UserContext(), kind, r.Params("id"), s.auditRecord(r, "end_"+kind, kind, r.Params("id")))
	if err != nil {
		return err
	}
	return r.answer(http.StatusOK, m)
}
