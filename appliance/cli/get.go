package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"patronus/configs"
	"patronus/dashboard"
	"patronus/dashboard/alert"
	"patronus/dashboard/auth"
	"patronus/dashboard/client"
	"patronus/dashboard/control"
)

// resource is a kind of thing that get lists.
type resource struct {
	singular string
	columns  string
	// list calls row for each item, up to limit, and returns them all.
	list func(ctx context.Context, c *client.Client, limit int, o []client.Option) (items any, rows [][]string, err error)
	// show is nil for what is only listed.
	show   func(ctx context.Context, c *client.Client, id string, o []client.Option) (item any, row []string, err error)
	delete func(ctx context.Context, c *client.Client, id string, o ...client.Option) (*dashboard.Accepted, error)
}

type (
	lister[T any] func(*client.Client, context.Context, ...client.Option) (*dashboard.Page[T], error)
	shower[T any] func(*client.Client, context.Context, string, ...client.Option) (*T, error)
)

// of makes a resource of two methods of the client and what a row shows.
func of[T any](singular, columns string, list lister[T], show shower[T], row func(*T) []string) resource {
	r := resource{singular: singular, columns: columns}
	r.list = func(ctx context.Context, c *client.Client, limit int, o []client.Option) (any, [][]string, error) {
		items, rows := []T{}, [][]string{}
		next := func(ctx context.Context, o ...client.Option) (*dashboard.Page[T], error) { return list(c, ctx, o...) }
		for x, err := range client.All(ctx, next, o...) {
			if err != nil {
				return nil, nil, err
			}
			items, rows = append(items, x), append(rows, row(&x))
			if len(items) == limit {
				break
			}
		}
		return items, rows, nil
	}
	if show != nil {
		r.show = func(ctx context.Context, c *client.Client, id string, o []client.Option) (any, []string, error) {
			x, err := show(c, ctx, id, o...)
			if err != nil {
				return nil, nil, err
			}
			return x, row(x), nil
		}
	}
	return r
}

func (r resource) removable(del func(*client.Client, context.Context, string, ...client.Option) (*dashboard.Accepted, error)) resource {
	r.delete = func(ctx context.Context, c *client.Client, id string, o ...client.Option) (*dashboard.Accepted, error) {
		return del(c, ctx, id, o...)
	}
	return r
}

// silently is for what is removed without a revision.
func silently(del func(*client.Client, context.Context, string, ...client.Option) error) func(*client.Client, context.Context, string, ...client.Option) (*dashboard.Accepted, error) {
	return func(c *client.Client, ctx context.Context, id string, o ...client.Option) (*dashboard.Accepted, error) {
		return &dashboard.Accepted{}, del(c, ctx, id, o...)
	}
}

// resources are what can be got, by their plural.
func resources() map[string]resource {
	return map[string]resource{
		"sites": of("site", "SITE\tSTATUS\tPATHS\tFLOWS\tREVISION\tIN SYNC\tPREFIXES", (*client.Client).ListSites, (*client.Client).ShowSite, func(s *dashboard.Site) []string {
			return cells(s.ID, s.Status, fmt.Sprintf("%d of %d up", s.Paths.Up, s.Paths.Total), s.Flows, s.Revision, yes(s.InSync), join(s.Prefixes))
		}).removable((*client.Client).DeleteSite),
		"paths": of("path", "PATH\tSTATUS\tFOR\tDELAY ms\tJITTER ms\tLOSS %\tMbit/s\tSCORE\tWHY", (*client.Client).ListPaths, (*client.Client).ShowPath, func(p *dashboard.Path) []string {
			m := &p.Metrics
			return cells(p.ID, p.Status, since(p.Since), fmt.Sprintf("%.1f", m.Latency), fmt.Sprintf("%.1f", m.Jitter), fmt.Sprintf("%.2f", m.PacketLoss), fmt.Sprintf("%.1f", m.Bandwidth), p.Scores["default"], p.Reason)
		}),
		"flows": of("flow", "FROM\tTO\tPROTOCOL\tSITE\tSTATUS\tCLASS\tPATH\tPACKETS\tBYTES\tSEEN", (*client.Client).ListFlows, (*client.Client).ShowFlow, func(f *dashboard.Flow) []string {
			return cells(fmt.Sprintf("%v:%d", f.Src, f.SrcPort), fmt.Sprintf("%v:%d", f.Dst, f.Port), f.Protocol, f.Site, f.Status, f.Class, f.Path, f.Packets, size(f.Bytes), since(f.Seen))
		}),
		"policies": of("policy", "POLICY\tKIND\tMODE\tAPPLIES TO\tBLOCKED, LAST HOUR\tDENIED\tALLOWED", (*client.Client).ListPolicies, (*client.Client).ShowPolicy, func(p *dashboard.Policy) []string {
			blocked := "-"
			if p.BlocksLastHour != nil {
				blocked = fmt.Sprint(*p.BlocksLastHour)
			}
			return cells(p.ID, p.Kind, p.Mode, p.AppliesTo, blocked, p.DeniedFlows, p.AllowedFlows)
		}).removable((*client.Client).DeletePolicy),
		"endpoints": of("endpoint", "ENDPOINT\tSITE\tADDRESSES\tLABELS", (*client.Client).ListEndpoints, (*client.Client).ShowEndpoint, func(e *dashboard.Endpoint) []string {
			return cells(e.ID, e.Site, join(e.Addresses), labels(e.Labels))
		}).removable((*client.Client).DeleteEndpoint),
		"routing-policies": of("routing-policy", "ROUTING POLICY\tPOSITION\tSTRICT", (*client.Client).ListRoutingPolicies, (*client.Client).ShowRoutingPolicy, func(p *dashboard.RoutingPolicy) []string {
			return cells(p.ID, p.Position, yes(p.Strict))
		}).removable((*client.Client).DeleteRoutingPolicy),
		"events": of("event", "WHEN\tSEVERITY\tEVENT\tSITE\tSOURCE\tACKNOWLEDGED\tID", (*client.Client).ListEvents, (*client.Client).ShowEvent, func(e *dashboard.Event) []string {
			return cells(clock(e.At), e.Severity, e.Type, e.Site, e.Source, yes(e.Acknowledged), e.ID)
		}),
		"alerts": of("alert", "ALERT\tSEVERITY\tSTATE\tTARGET\tSINCE\tID", (*client.Client).ListAlerts, nil, func(a *alert.Alert) []string {
			return cells(a.Name, a.Severity, a.State, a.Target, since(a.Since), a.ID)
		}),
		"alert-rules": of("alert-rule", "RULE\tNAME\tSEVERITY\tFOR", (*client.Client).ListAlertRules, (*client.Client).ShowAlertRule, func(r *configs.AlertRule) []string {
			return cells(r.ID, r.Name, r.Severity, time.Duration(r.For))
		}).removable((*client.Client).DeleteAlertRule),
		"nodes": of("node", "NODE\tSITE\tROLE\tTERM\tVERSION\tSEEN", (*client.Client).ListNodes, nil, func(n *dashboard.Node) []string {
			return cells(n.ID, n.Site, n.Role, n.Term, n.Version, since(n.SeenAt))
		}),
		"revisions": of("revision", "REVISION\tWHEN\tWHO\tWHAT\tOF", (*client.Client).ListRevisions, nil, func(r *control.Revision) []string {
			return cells(r.Number, clock(r.At), r.User, r.Action, r.ID)
		}),
		"users": of("user", "USER\tROLE\tDISABLED", (*client.Client).ListUsers, (*client.Client).ShowUser, func(u *auth.User) []string {
			return cells(u.Name, u.Role, yes(u.Disabled))
		}).removable(silently((*client.Client).DeleteUser)),
		"tokens": of("token", "TOKEN\tNAME\tUSER\tEXPIRES", (*client.Client).ListTokens, nil, func(k *auth.Token) []string {
			return cells(k.ID, k.Name, k.User, clock(k.ExpiresAt))
		}).removable(silently((*client.Client).DeleteToken)),
		"audit": of("audit", "NUMBER\tWHEN\tWHO\tFROM\tACTION\tOF\tOUTCOME", (*client.Client).ListAudit, nil, func(a *dashboard.AuditEntry) []string {
			return cells(a.Seq, clock(a.At), a.User, a.IP, a.Action, a.ResourceID, a.Outcome)
		}),
	}
}

func cells(all ...any) []string {
	out := make([]string, len(all))
	for i, v := range all {
		if out[i] = fmt.Sprint(v); out[i] == "" {
			out[i] = "-"
		}
	}
	return out
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func join[T any](all []T) string {
	return strings.Trim(fmt.Sprint(all), "[]")
}

func labels(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, ",")
}

func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return max(time.Since(t), 0).Round(time.Second).String()
}

// findResource takes plurals and singulars.
func findResource(name string) (resource, error) {
	all := resources()
	if r, ok := all[name]; ok {
		return r, nil
	}
	for _, r := range all {
		if r.singular == name {
			return r, nil
		}
	}
	return resource{}, fmt.Errorf("%w: there is no kind %q; there are: %s", ErrUsage, name, strings.Join(slices.Sorted(maps.Keys(all)), " "))
}

type getCmd struct {
	remote
	Kind   string        `arg:"" help:"sites, paths, flows, policies, endpoints, routing-policies, events, alerts, alert-rules, nodes, revisions, users, tokens, audit, or network."`
	ID     string        `arg:"" optional:"" help:"Show this one only."`
	Filter []string      `help:"FIELD=VALUE, repeated; label.NAME=VALUE; q=TEXT searches everything." short:"f" placeholder:"FIELD=VALUE"`
	Sort   string        `help:"The field to sort by; --sort=-FIELD for the greatest first." placeholder:"FIELD"`
	At     string        `help:"As it was at a past time (RFC 3339), or so long ago: 15m." placeholder:"TIME"`
	Limit  int           `help:"How many at most; 0 for all." default:"200"`
	Watch  bool          `help:"Go on until interrupted, looking again every --every." short:"w"`
	Every  time.Duration `help:"How often --watch looks." default:"2s"`
}

// Help is what --help says besides.
func (getCmd) Help() string {
	return `Asks the dashboard that patronus login or PATRONUS_URL names.

  patronus get sites
  patronus get paths -f status=down
  patronus get flows --watch -f status=denied
  patronus get policy default~web -o yaml
  patronus get events --at 15m -o json
  patronus get network -o yaml > network.yaml`
}

// Run implements kong's command.
func (c *getCmd) Run(ctx context.Context, env *Env) error {
	options, err := c.options()
	if err != nil {
		return err
	}
	api, err := c.client(ctx)
	if err != nil {
		return err
	}
	defer api.Close()
	if c.Kind == "network" {
		return c.network(ctx, env, api)
	}
	r, err := findResource(c.Kind)
	if err != nil {
		return err
	}
	if !c.Watch {
		return c.once(ctx, env.Stdout, api, &r, options)
	}
	tick := time.NewTicker(max(c.Every, 500*time.Millisecond))
	defer tick.Stop()
	for {
		if env.Terminal && c.Output == "table" {
			fmt.Fprint(env.Stdout, "\x1b[H\x1b[2J") // home, clear
		}
		if err := c.once(ctx, env.Stdout, api, &r, options); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (c *getCmd) once(ctx context.Context, w io.Writer, api *client.Client, r *resource, options []client.Option) error {
	if c.ID != "" {
		if r.show == nil {
			return fmt.Errorf("%w: %s are only listed: leave %q out, or use --filter", ErrUsage, c.Kind, c.ID)
		}
		item, row, err := r.show(ctx, api, c.ID, options)
		if err != nil {
			return explained(err)
		}
		return c.print(w, item, func(t *tabwriter.Writer) { writeRows(t, r.columns, [][]string{row}) })
	}
	items, rows, err := r.list(ctx, api, c.Limit, options)
	if err != nil {
		return explained(err)
	}
	return c.print(w, items, func(t *tabwriter.Writer) { writeRows(t, r.columns, rows) })
}

func writeRows(t *tabwriter.Writer, columns string, rows [][]string) {
	if len(rows) == 0 {
		fmt.Fprintln(t, "none")
		return
	}
	fmt.Fprintln(t, columns)
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
}

func (c *getCmd) options() ([]client.Option, error) {
	o := []client.Option{client.Query("sort", c.Sort)}
	for _, f := range c.Filter {
		name, value, ok := strings.Cut(f, "=")
		if !ok {
			return nil, fmt.Errorf("%w: --filter %q: want FIELD=VALUE", ErrUsage, f)
		}
		o = append(o, client.Query(name, value))
	}
	if c.At != "" {
		at := c.At
		if ago, err := time.ParseDuration(at); err == nil {
			at = time.Now().Add(-ago).UTC().Format(time.RFC3339)
		}
		o = append(o, client.Query("at", at))
	}
	return o, nil
}

// network prints the whole network as one text that apply takes back.
func (c *getCmd) network(ctx context.Context, env *Env, api *client.Client) error {
	accept := "application/yaml"
	if c.Output == "json" {
		accept = "application/json"
	}
	resp, err := api.Send(ctx, "GET", "/api/v1/network", nil, client.Header("Accept", accept))
	if err != nil {
		return explained(err)
	}
	defer resp.Body.Close()
	_, err = io.Copy(env.Stdout, resp.Body)
	return err
}

type deleteCmd struct {
	remote
	Kind   string `arg:"" help:"site, policy, endpoint, routing-policy, alert-rule, user or token."`
	ID     string `arg:"" help:"Which."`
	Yes    bool   `help:"Do not ask."`
	DryRun bool   `help:"Check, and say what would change; change nothing."`
}

// Run implements kong's command.
func (c *deleteCmd) Run(ctx context.Context, env *Env) error {
	r, err := findResource(c.Kind)
	if err != nil {
		return err
	}
	if r.delete == nil {
		return fmt.Errorf("%w: %s cannot be removed", ErrUsage, c.Kind)
	}
	api, err := c.client(ctx)
	if err != nil {
		return err
	}
	defer api.Close()
	if !c.Yes && !c.DryRun {
		if !env.Terminal {
			return fmt.Errorf("%w: removing %s %s needs --yes where nobody can be asked", ErrUsage, r.singular, c.ID)
		}
		fmt.Fprintf(env.Stdout, "remove %s %s? type its name: ", r.singular, c.ID)
		var typed string
		if _, err := fmt.Fscanln(env.Stdin, &typed); err != nil || typed != c.ID {
			return errors.New("nothing was removed")
		}
	}
	got, err := r.delete(ctx, api, c.ID, client.DryRun(c.DryRun))
	if err != nil {
		return explained(err)
	}
	return c.print(env.Stdout, got, func(t *tabwriter.Writer) { writeAccepted(t, r.singular+" "+c.ID, "removed", got) })
}

// writeAccepted says what became of a change.
func writeAccepted(t *tabwriter.Writer, what, done string, a *dashboard.Accepted) {
	switch {
	case a.Unchanged:
		done = "unchanged"
	case a.DryRun:
		done = "would be " + done
	}
	fmt.Fprintf(t, "%s\t%s", what, done)
	if a.Revision > 0 {
		fmt.Fprintf(t, "\trevision %d", a.Revision)
	}
	fmt.Fprintln(t)
	if a.Reach == nil {
		return
	}
	for _, p := range a.Reach.Pairs {
		if len(p.Lost) > 0 {
			fmt.Fprintf(t, "  - %s to %s\tloses\t%v\n", p.From, p.To, p.Lost)
		}
		if len(p.Gained) > 0 {
			fmt.Fprintf(t, "  + %s to %s\tgains\t%v\n", p.From, p.To, p.Gained)
		}
	}
	for _, p := range a.Reach.Prefixes {
		sign, verb := "-", "loses"
		if p.Gained {
			sign, verb = "+", "gains"
		}
		fmt.Fprintf(t, "  %s %s\t%s\t%v\n", sign, p.Site, verb, p.Prefix)
	}
}
