package cli

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"patronus/netstack"
	"patronus/netstack/policy"
)

type policyCmd struct {
	Verdicts policyVerdictsCmd `cmd:"" help:"Evaluate a self-contained case (endpoints, policies, flows) and print the verdicts as JSON."`
	Check    policyCheckCmd    `cmd:"" help:"Validate policies as the Kubernetes API server would."`
	Lint     policyLintCmd     `cmd:"" help:"Find what is wrong with a set of policies: redundant, contradictory, without effect, cutting off. Exit 1 on errors, 0 on warnings."`
	Matrix   policyMatrixCmd   `cmd:"" help:"Show who reaches whom on which ports."`
	Simulate policySimulateCmd `cmd:"" help:"Say what a candidate set of policies would change: between endpoints, for given flows, for recorded flows. Exit 1 if it cuts a site from its management."`
	Pack     policyPackCmd     `cmd:"" help:"Pack recorded flows (JSON lines) for fast replays."`
}

type policyVerdictsCmd struct {
	File string `short:"f" name:"file" help:"The case, YAML or JSON; - reads standard input." required:"" placeholder:"CASE"`
}

// Run implements kong's command.
func (c *policyVerdictsCmd) Run(env *Env) error {
	in, err := readInput(env, c.File)
	if err != nil {
		return err
	}
	return policy.RunVerdicts(in, displayName(c.File), env.Stdout)
}

type policyCheckCmd struct {
	File   string `short:"f" name:"file" help:"NetworkPolicy or ClusterNetworkPolicy objects, YAML or JSON; - reads standard input." required:"" placeholder:"POLICY"`
	Output string `short:"o" help:"Print the policies with defaults filled in: yaml or json." enum:",yaml,json" default:"" placeholder:"FORMAT"`
}

// Run implements kong's command.
func (c *policyCheckCmd) Run(env *Env) error {
	in, err := readInput(env, c.File)
	if err != nil {
		return err
	}
	if err := policy.CheckPolicy(in, displayName(c.File), c.Output, env.Stdout); err != nil {
		return &exitError{code: 1, err: err}
	}
	return nil
}

// maxInput is more than any policy file may have, so that the parser and not
// the reader says that it is too large.
const maxInput = 64 << 20

func readInput(env *Env, file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(io.LimitReader(env.Stdin, maxInput))
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxInput))
}

func displayName(file string) string {
	if file == "-" {
		return "<stdin>"
	}
	return file
}

type explainCmd struct {
	local
	From string `arg:"" help:"Source address."`
	To   string `arg:"" help:"Destination: ADDRESS:PORT/PROTOCOL, such as 10.2.1.3:443/tcp or [fd00::1]:53/udp; ADDRESS alone asks for ICMP."`
	DSCP uint8  `name:"dscp" help:"DSCP of the packet, 0 to 63."`
	At   string `help:"Explain the flow that was alive at this time (RFC 3339, or 15:04:05 of today)." placeholder:"TIME"`
}

// Run implements kong's command.
func (c *explainCmd) Run(ctx context.Context, env *Env) error {
	q, err := parseQuestion(c.From, c.To)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	q.DSCP = c.DSCP
	if c.At != "" {
		if q.At, err = parseTime(c.At, time.Now()); err != nil {
			return fmt.Errorf("%w: %w", ErrUsage, err)
		}
	}
	x, err := c.client().Explain(ctx, q)
	if err != nil {
		return notRunning(err, c.DataDir)
	}
	return c.print(env.Stdout, x, func(t *tabwriter.Writer) { writeExplanation(t, x) })
}

func parseQuestion(from, to string) (netstack.Question, error) {
	var q netstack.Question
	var err error
	if q.From, err = netip.ParseAddr(from); err != nil {
		return q, fmt.Errorf("source: %w", err)
	}
	to, q.Protocol, _ = strings.Cut(to, "/")
	q.Protocol = strings.ToUpper(q.Protocol)
	if q.To, err = netip.ParseAddr(to); err == nil {
		if q.Protocol == "" {
			q.Protocol = "ICMP"
			if q.To.Is6() {
				q.Protocol = "ICMPv6"
			}
		}
		return q, nil
	}
	ap, err := netip.ParseAddrPort(to)
	if err != nil {
		return q, fmt.Errorf("destination %q is not ADDRESS:PORT/PROTOCOL", to)
	}
	q.To, q.Port = ap.Addr(), ap.Port()
	return q, nil
}

// parseTime reads an instant, or a time of today.
func parseTime(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	t, err := time.ParseInLocation("15:04:05", s, now.Location())
	if err != nil {
		return t, fmt.Errorf("time %q is neither RFC 3339 nor 15:04:05", s)
	}
	y, m, d := now.Date()
	return time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), 0, now.Location()), nil
}

func writeExplanation(t *tabwriter.Writer, x *netstack.Explanation) {
	verdict := x.Verdict
	if x.Reason != "" {
		verdict += " (" + x.Reason + ")"
	}
	fmt.Fprintf(t, "verdict\t%s\n", verdict)
	for _, end := range []struct {
		name string
		p    policy.Party
	}{{"from", x.Policy.From}, {"to", x.Policy.To}} {
		who := end.p.Address.String()
		if end.p.Known {
			who += fmt.Sprintf(" is %s/%s %v", end.p.Namespace, end.p.Name, end.p.Labels)
		} else {
			who += " is no endpoint: only ipBlock can match it"
		}
		fmt.Fprintf(t, "%s\t%s\n", end.name, who)
	}
	writeSide(t, "egress", x.Policy.Egress, x.EnforcesEgress)
	writeSide(t, "ingress", x.Policy.Ingress, x.EnforcesIngress)
	fmt.Fprintf(t, "class\t%s\n", x.Class)
	fmt.Fprintf(t, "route\t%s\n", x.Route)
	if len(x.Candidates) > 0 {
		fmt.Fprintf(t, "path\t%s (%s)\n", dash(string(x.Winner)), x.Why)
		for _, c := range x.Candidates {
			score := "-"
			if c.Score >= 0 {
				score = strconv.Itoa(int(c.Score))
			}
			fmt.Fprintf(t, "\t%s: %s, score %s%s\n", c.Path, c.State, score, prefixed(", ", c.Note))
		}
	}
	if x.MTU > 0 {
		fmt.Fprintf(t, "mtu\t%d\n", x.MTU)
	}
	if x.Flow != nil {
		fmt.Fprintf(t, "flow\t%s, %s, path %s\n", x.Flow.ID, x.Flow.Status, dash(string(x.Flow.Path)))
		if d := x.Flow.Decision; d != nil {
			fmt.Fprintf(t, "\tdecided %s by %s rule %d (%s), class %s\n", d.At.Format("2006-01-02 15:04:05"), dash(d.Policy), d.Rule, d.Reason, d.Class)
		}
	}
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func writeSide(t *tabwriter.Writer, name string, s policy.Side, here bool) {
	where := "judged by the other site"
	if here {
		where = "judged here"
	}
	answer := "denied"
	if s.Allowed {
		answer = "allowed"
	}
	fmt.Fprintf(t, "%s\t%s: %s%s, %s\n", name, answer, s.Reason, prefixed(" by ", ruleName(s)), where)
	for i := range s.Considered {
		c := &s.Considered[i]
		if c.Selects {
			fmt.Fprintf(t, "\t%s (%s): %s\n", c.Policy, c.Mode, c.Why)
		}
	}
}

func ruleName(s policy.Side) string {
	if s.Policy == "" {
		return ""
	}
	if s.Rule < 0 {
		return s.Policy
	}
	return fmt.Sprintf("%s rule %d", s.Policy, s.Rule)
}
