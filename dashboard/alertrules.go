package dashboard

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/gofiber/fiber/v2"

	"patronus/configs"
	"patronus/dashboard/alert"
	"patronus/dashboard/auth"
	"patronus/dashboard/control"
)

// AlertText is rules as YAML or JSON, one or a list.
type AlertText struct {
	Text string `json:"text"`
}

// TrialBody asks what a rule would have done; Text or Rule.
type TrialBody struct {
	Rule *configs.AlertRule `json:"rule,omitempty"`
	Text string             `json:"text,omitempty"`
	// Hours back from now, 1 to 2160; default a week.
	Hours int `json:"hours,omitempty"`
}

const backtestFor = 15 * time.Second

func alertRuleRoutes() []Route {
	dry := Param{"dry_run", "boolean", "check everything, write nothing"}
	return []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/alerts/rules", Name: "listAlertRules", Access: needs(auth.ViewEvents), Status: 200,
			Doc: "List the alert rules.", Answer: Page[configs.AlertRule]{}, handle: (*Server).listAlertRules,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/alerts/rules/:id", Name: "showAlertRule", Access: needs(auth.ViewEvents), Status: 200,
			Doc: "Show one alert rule.", Answer: configs.AlertRule{}, handle: (*Server).showAlertRule,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/alerts/rules", Name: "createAlertRule", Access: fabric(auth.ManageAlerts), Status: 202, Create: true,
			Doc: "Add an alert rule.", Body: configs.AlertRule{}, Answer: Accepted{}, Query: []Param{dry}, handle: (*Server).createAlertRule,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/alerts/rules/import", Name: "importAlertRules", Access: fabric(auth.ManageAlerts), Status: 202,
			Doc: "Add or replace alert rules from a text in YAML or JSON.", Body: AlertText{}, Answer: Accepted{}, Query: []Param{dry}, handle: (*Server).importAlertRules,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/alerts/rules/backtest", Name: "backtestAlertRule", Access: fabric(auth.ViewEvents), Status: 200,
			Doc: "Say when a rule would have fired; it need not exist.", Body: TrialBody{}, Answer: alert.Trial{}, handle: (*Server).backtestAlertRule,
		},
		{
			Method: http.MethodPut, Path: "/api/v1/alerts/rules/:id", Name: "updateAlertRule", Access: fabric(auth.ManageAlerts), Status: 202,
			Doc: "Replace an alert rule.", Body: configs.AlertRule{}, Answer: Accepted{}, Query: []Param{dry}, handle: (*Server).updateAlertRule,
		},
		{
			Method: http.MethodDelete, Path: "/api/v1/alerts/rules/:id", Name: "deleteAlertRule", Access: fabric(auth.DeleteConfig), Status: 202,
			Doc: "Remove an alert rule.", Answer: Accepted{}, Query: []Param{dry}, handle: (*Server).deleteAlertRule,
		},
	}
}

func ruleAt(list []configs.AlertRule, id string) int {
	return slices.IndexFunc(list, func(r configs.AlertRule) bool { return r.ID == id })
}

// alerting is what may be changed of a network's alerts: the defaults become
// its own with the first change.
func alerting(n *configs.Network) *configs.Alerts {
	if n.Alerts == nil {
		n.Alerts = configs.DefaultAlerts()
	}
	return n.Alerts
}

func (s *Server) listAlertRules(r *request) error {
	return firsts(r, s.o.Plane.Current().Network.Alerting().Rules)
}

func (s *Server) showAlertRule(r *request) error {
	rules := s.o.Plane.Current().Network.Alerting().Rules
	at := ruleAt(rules, r.Params("id"))
	if at < 0 {
		return notFound("alert rule", r.Params("id"))
	}
	r.Set(fiber.HeaderETag, tag(rules[at]))
	return r.answer(http.StatusOK, rules[at])
}

// takeKey takes the PagerDuty key out of a rule: it is a secret.
func takeKey(rule *configs.AlertRule) (key string) {
	if n := rule.Notification; n != nil && n.PagerDuty != nil {
		key = n.PagerDuty.ServiceKey
		copied := *n
		copied.PagerDuty = &configs.PagerDutyTarget{}
		rule.Notification = &copied
	}
	return key
}

// writeRules commits rules and keeps their keys, unless it is a dry run.
func (s *Server) writeRules(r *request, rules []configs.AlertRule, ch control.Change, location string) error {
	keys := map[string]string{}
	for i := range rules {
		if rules[i].ID == "" {
			rules[i].ID = configs.AlertID(rules[i].Name)
		}
		if err := rules[i].Validate(""); err != nil {
			return err
		}
		if key := takeKey(&rules[i]); key != "" {
			keys[rules[i].ID] = key
		}
	}
	if len(keys) > 0 && s.o.Alerts == nil {
		return ErrUnavailable
	}
	if ch.ID == "" && len(rules) == 1 {
		ch.ID = rules[0].ID
	}
	ch.Kind = "alert_rule"
	ch.Show = func(n *configs.Network) any {
		var shown []configs.AlertRule
		for i := range rules {
			if at := ruleAt(n.Alerting().Rules, rules[i].ID); at >= 0 {
				shown = append(shown, n.Alerting().Rules[at])
			}
		}
		if shown == nil {
			return nil
		}
		return shown
	}
	a, err := s.change(r, ch)
	if err != nil {
		return err
	}
	if !a.DryRun {
		for id, key := range keys {
			if err := s.o.Alerts.SetRuleKey(r.UserContext(), id, key); err != nil {
				return err
			}
		}
	}
	return r.accepted(a, location)
}

func (s *Server) createAlertRule(r *request) error {
	rules := make([]configs.AlertRule, 1)
	if err := r.body(&rules[0]); err != nil {
		return err
	}
	return s.writeRules(r, rules, control.Change{Action: "create_alert_rule", Edit: func(n *configs.Network) error {
		if ruleAt(alerting(n).Rules, rules[0].ID) >= 0 {
			return problem(http.StatusConflict, "exists", fmt.Sprintf("there is a rule %q already", rules[0].ID))
		}
		n.Alerts.Rules = append(n.Alerts.Rules, rules[0])
		return nil
	}}, "/api/v1/alerts/rules/")
}

func (s *Server) importAlertRules(r *request) error {
	var b AlertText
	if err := r.body(&b); err != nil {
		return err
	}
	rules, err := alert.Parse([]byte(b.Text))
	if err != nil {
		return err
	}
	return s.writeRules(r, rules, control.Change{Action: "import_alert_rules", Edit: func(n *configs.Network) error {
		for i := range rules {
			if at := ruleAt(alerting(n).Rules, rules[i].ID); at >= 0 {
				n.Alerts.Rules[at] = rules[i]
			} else {
				n.Alerts.Rules = append(n.Alerts.Rules, rules[i])
			}
		}
		return nil
	}}, "")
}

func (s *Server) updateAlertRule(r *request) error {
	id := r.Params("id")
	rules := make([]configs.AlertRule, 1)
	if err := r.body(&rules[0]); err != nil {
		return err
	}
	if rules[0].ID != "" && rules[0].ID != id {
		return invalid("id", "a rule keeps its id")
	}
	rules[0].ID = id
	return s.writeRules(r, rules, control.Change{Action: "update_alert_rule", ID: id, Edit: func(n *configs.Network) error {
		at := ruleAt(alerting(n).Rules, id)
		if at < 0 {
			return notFound("alert rule", id)
		}
		if err := r.match(tag(n.Alerts.Rules[at])); err != nil {
			return err
		}
		n.Alerts.Rules[at] = rules[0]
		return nil
	}}, "/api/v1/alerts/rules/"+id)
}

func (s *Server) deleteAlertRule(r *request) error {
	id := r.Params("id")
	return s.commit(r, control.Change{
		Action: "delete_alert_rule", Kind: "alert_rule", ID: id,
		Show: func(n *configs.Network) any {
			if at := ruleAt(n.Alerting().Rules, id); at >= 0 {
				return n.Alerting().Rules[at]
			}
			return nil
		},
		Edit: func(n *configs.Network) error {
			at := ruleAt(alerting(n).Rules, id)
			if at < 0 {
				return notFound("alert rule", id)
			}
			if err := r.match(tag(n.Alerts.Rules[at])); err != nil {
				return err
			}
			n.Alerts.Rules = slices.Delete(n.Alerts.Rules, at, at+1)
			return nil
		},
	}, "")
}

func (s *Server) backtestAlertRule(r *request) error {
	if s.o.Alerts == nil {
		return ErrUnavailable
	}
	var b TrialBody
	if err := r.body(&b); err != nil {
		return err
	}
	var rule configs.AlertRule
	switch {
	case b.Rule != nil && b.Text == "":
		rule = *b.Rule
		if rule.ID == "" {
			rule.ID = configs.AlertID(rule.Name)
		}
		if err := rule.Validate("rule"); err != nil {
			return err
		}
	case b.Text != "" && b.Rule == nil:
		rules, err := alert.Parse([]byte(b.Text))
		if err != nil {
			return err
		}
		if len(rules) != 1 {
			return invalid("text", "has more than one rule")
		}
		rule = rules[0]
	default:
		return invalid("rule", "or text is needed, not both")
	}
	if b.Hours == 0 {
		b.Hours = 7 * 24
	}
	if b.Hours < 1 || b.Hours > 90*24 {
		return invalid("hours", "must be 1 to 2160")
	}
	defer s.meter.query("backtest")()
	ctx, cancel := context.WithTimeout(r.UserContext(), backtestFor)
	defer cancel()
	trial, err := s.o.Alerts.Backtest(ctx, rule, r.now.UTC().Add(-time.Duration(b.Hours)*time.Hour), r.now.UTC())
	if err != nil {
		return err
	}
	return r.answer(http.StatusOK, trial)
}
