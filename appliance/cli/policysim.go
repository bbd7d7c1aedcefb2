package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"patronus/configs"
	"patronus/netstack/policy"
	"patronus/netstack/policy/simulate"
)

// policyWorld says where today's endpoints and policies come from.
type policyWorld struct {
	Config string `help:"Configuration with today's endpoints, namespaces and policies." type:"path" placeholder:"SITE.yaml"`
	Output string `short:"o" help:"table or json." default:"table" enum:"table,json"`
}

// today reads the configuration. Its policies must all be valid.
func (c *policyWorld) today() (policy.Input, simulate.LintOptions, error) {
	text, err := os.ReadFile(c.Config)
	if err != nil {
		return policy.Input{}, simulate.LintOptions{}, err
	}
	cfg, err := configs.Parse(c.Config, text)
	if err != nil {
		return policy.Input{}, simulate.LintOptions{}, err
	}
	in := policy.Input{Namespaces: cfg.Namespaces, Endpoints: cfg.Hosts}
	var bad []error
	for i := range cfg.Policies {
		p, err := policy.FromConfig(cfg.Policies[i], fmt.Sprintf("%s: policies[%d]", c.Config, i))
		bad = append(bad, err)
		in.Policies = append(in.Policies, p)
	}
	o := simulate.LintOptions{Sites: cfg.Sites}
	for i := range cfg.Sites {
		o.Management = append(o.Management, simulate.Management{Site: cfg.Sites[i].Name, Addr: cfg.OverlayAddress(&cfg.Sites[i])})
	}
	return in, o, errors.Join(bad...)
}

// printJSON writes v for scripts.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

type policySimulateCmd struct {
	policyWorld
	File    string   `short:"f" name:"file" help:"The candidate: policies that are added to today's; one of the same kind, namespace and name replaces today's. - reads standard input." placeholder:"CANDIDATE.yaml"`
	Replace bool     `help:"The candidate is all there would be: every policy of today that it does not name goes away."`
	Remove  []string `help:"Remove this policy of today, as Kind/namespace/name; may be repeated." placeholder:"ID"`
	Flow    []string `help:"Judge this flow, FROM,TO:PORT/PROTOCOL, such as shop/web,shop/db:5432/tcp; ends are namespace/name or addresses; may be repeated." placeholder:"FLOW" sep:"none"`
	Flows   string   `help:"Replay recorded flows: JSON lines as patronus prints flows, or a packed file (patronus policy pack)." placeholder:"FILE"`
	Samples int      `help:"Recorded flows to show for each rule and kind of change." default:"3"`
	Matrix  bool     `help:"Show the whole reachability matrix under the candidate, not only what changes."`
	Force   bool     `help:"Exit 0 even if the candidate cuts a site from its management."`
}

// simulation is what policy simulate prints as JSON.
type simulation struct {
	Changes  []simulate.Pair    `json:"changes"`
	Matrix   []simulate.Pair    `json:"matrix,omitempty"`
	Flows    []simulate.Outcome `json:"flows,omitempty"`
	Replay   *simulate.Report   `json:"replay,omitempty"`
	Findings []simulate.Finding `json:"findings"`
}

// Run implements kong's command.
func (c *policySimulateCmd) Run(ctx context.Context, env *Env) error {
	if c.Config == "" || c.File == "" && len(c.Remove) == 0 {
		return fmt.Errorf("%w: --config and a candidate are needed: -f, --remove or both", ErrUsage)
	}
	today, lint, err := c.today()
	if err != nil {
		return err
	}
	added, removed, err := c.candidate(env, &today)
	if err != nil {
		return err
	}
	w, err := simulate.NewWorld(today, removed, added)
	if err != nil {
		return err
	}
	diff, err := w.Diff(ctx)
	if err != nil {
		return err
	}
	out := simulation{Changes: w.DifferencePairs(diff), Findings: simulate.Lint(w, lint)}
	var matrix *simulate.Matrix
	if c.Matrix {
		if matrix, err = w.Matrix(ctx, true, nil); err != nil {
			return err
		}
		out.Matrix = w.Pairs(matrix)
	}
	for _, text := range c.Flow {
		f, err := parseFlow(text)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUsage, err)
		}
		outcome, err := w.Flow(f)
		if err != nil {
			return fmt.Errorf("%w: flow %s: %w", ErrUsage, text, err)
		}
		out.Flows = append(out.Flows, outcome)
	}
	if c.Flows != "" {
		if out.Replay, err = c.replay(ctx, env, &today, removed, added); err != nil {
			return err
		}
	}
	if c.Output == "json" {
		err = printJSON(env.Stdout, &out)
	} else {
		err = writeSimulation(env.Stdout, w, diff, matrix, &out)
	}
	if err != nil || c.Force {
		return err
	}
	return refused(out.Findings)
}

// candidate reads what would be added and removed.
func (c *policySimulateCmd) candidate(env *Env, today *policy.Input) (added []policy.Policy, removed []string, err error) {
	known := map[string]policy.Policy{}
	for _, p := range today.Policies {
		known[p.ID()] = p
	}
	for _, id := range c.Remove {
		if _, ok := known[id]; !ok {
			return nil, nil, fmt.Errorf("%w: --remove %s: there is no such policy today", ErrUsage, id)
		}
	}
	removed = c.Remove
	if c.File == "" {
		return nil, removed, nil
	}
	text, err := readInput(env, c.File)
	if err != nil {
		return nil, nil, err
	}
	objects, err := policy.ParsePolicies(text, displayName(c.File))
	if err != nil {
		return nil, nil, err
	}
	named := map[string]bool{}
	for _, o := range objects {
		if named[o.ID()] {
			return nil, nil, fmt.Errorf("%s: %s is there twice", displayName(c.File), o.ID())
		}
		named[o.ID()] = true
		added = append(added, policy.Policy{Object: o, Reject: known[o.ID()].Reject})
	}
	if c.Replace {
		for _, p := range today.Policies {
			if !named[p.ID()] && !slices.Contains(removed, p.ID()) {
				removed = append(removed, p.ID())
			}
		}
	}
	return added, removed, nil
}

// replay judges the recorded flows by the candidate.
func (c *policySimulateCmd) replay(ctx context.Context, env *Env, today *policy.Input, removed []string, added []policy.Policy) (*simulate.Report, error) {
	f, err := os.Open(c.Flows)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	compiler := policy.NewCompiler()
	rules, err := compiler.Apply(policy.Change{Input: policy.Input{
		Namespaces: today.Namespaces, Endpoints: today.Endpoints, Policies: simulate.Amend(today.Policies, removed, added),
	}})
	if err != nil {
		return nil, err
	}
	o := simulate.ReplayOptions{Samples: c.Samples}
	if c.Samples == 0 {
		o.Samples = -1
	}
	if info, err := f.Stat(); err == nil && terminal(env.Stderr) {
		bar := progress{w: env.Stderr, size: info.Size()}
		o.Progress = bar.show
		defer bar.clear()
	}
	report, err := simulate.Replay(ctx, compiler, rules, f, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Flows, err)
	}
	return report, nil
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// progress is a bar on standard error, redrawn ten times a second at most.
type progress struct {
	w    io.Writer
	size int64
	last time.Time
}

func (p *progress) show(read int64) {
	if now := time.Now(); p.size > 0 && now.Sub(p.last) > 100*time.Millisecond {
		p.last = now
		const width = 40
		done := min(int(read*width/p.size), width)
		fmt.Fprintf(p.w, "\rreplay [%s%s] %3d%% of %s", strings.Repeat("=", done), strings.Repeat(" ", width-done), min(read*100/p.size, 100), size(uint64(p.size)))
	}
}

func (p *progress) clear() {
	if !p.last.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// parseFlow reads FROM,TO:PORT/PROTOCOL.
func parseFlow(s string) (simulate.Flow, error) {
	from, to, ok := strings.Cut(s, ",")
	at := strings.LastIndex(to, ":")
	if !ok || at < 0 {
		return simulate.Flow{}, fmt.Errorf("flow %q is not FROM,TO:PORT/PROTOCOL", s)
	}
	port, protocol, _ := strings.Cut(to[at+1:], "/")
	f := simulate.Flow{From: from, To: strings.Trim(to[:at], "[]"), Protocol: strings.ToUpper(protocol)}
	if f.Protocol == "" {
		f.Protocol = "TCP"
	}
	if _, err := fmt.Sscanf(port, "%d", &f.Port); err != nil {
		return f, fmt.Errorf("flow %q: port %q is not a number from 0 to 65535", s, port)
	}
	return f, nil
}

// refused is the exit status of policies that cut a site from its management.
func refused(findings []simulate.Finding) error {
	for i := range findings {
		if findings[i].Refused {
			return &exitError{code: 1, err: errors.New("refused: a site would be cut from its management (--force to go on)")}
		}
	}
	return nil
}

type policyLintCmd struct {
	policyWorld
	File  string `short:"f" name:"file" help:"A self-contained case instead of a configuration, as policy verdicts takes it; - reads standard input." placeholder:"CASE"`
	Force bool   `help:"Exit 0 even if there are errors."`
}

// world reads a configuration or a case.
func (c *policyWorld) world(env *Env, file string) (*simulate.World, simulate.LintOptions, error) {
	if (c.Config == "") == (file == "") {
		return nil, simulate.LintOptions{}, fmt.Errorf("%w: either --config or -f is needed", ErrUsage)
	}
	var in policy.Input
	var o simulate.LintOptions
	var err error
	if c.Config != "" {
		in, o, err = c.today()
	} else {
		var text []byte
		if text, err = readInput(env, file); err == nil {
			in, err = policy.ReadCase(text, displayName(file))
		}
	}
	if err != nil {
		return nil, o, err
	}
	w, err := simulate.NewWorld(in, nil, nil)
	return w, o, err
}

// Run implements kong's command.
func (c *policyLintCmd) Run(env *Env) error {
	w, o, err := c.world(env, c.File)
	if err != nil {
		return err
	}
	findings := simulate.Lint(w, o)
	if c.Output == "json" {
		if findings == nil {
			findings = []simulate.Finding{}
		}
		err = printJSON(env.Stdout, map[string]any{"findings": findings})
	} else {
		err = writeFindings(env.Stdout, findings)
	}
	if err != nil || c.Force {
		return err
	}
	if slices.ContainsFunc(findings, func(f simulate.Finding) bool { return f.Severity == simulate.Error }) {
		return &exitError{code: 1}
	}
	return nil
}

type policyMatrixCmd struct {
	policyWorld
	File      string `short:"f" name:"file" help:"A self-contained case instead of a configuration, as policy verdicts takes it; - reads standard input." placeholder:"CASE"`
	Namespace string `help:"Only endpoints of this namespace, and what is in no endpoint."`
	Site      string `help:"Only endpoints of this site, and what is in no endpoint."`
}

// Run implements kong's command.
func (c *policyMatrixCmd) Run(ctx context.Context, env *Env) error {
	w, _, err := c.world(env, c.File)
	if err != nil {
		return err
	}
	m, err := w.Matrix(ctx, true, func(g *simulate.Group) bool {
		if len(g.Endpoints) == 0 {
			return true
		}
		inSpace := func(e string) bool { return c.Namespace == "" || strings.HasPrefix(e, c.Namespace+"/") }
		return slices.ContainsFunc(g.Endpoints, inSpace) && (c.Site == "" || slices.Contains(g.Sites, c.Site))
	})
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return printJSON(env.Stdout, map[string]any{"pairs": w.Pairs(m)})
	}
	return writeMatrix(env.Stdout, w, m)
}

type policyPackCmd struct {
	In  string `arg:"" help:"Recorded flows as JSON lines."`
	Out string `arg:"" help:"The packed file to write."`
}

// Run implements kong's command.
func (c *policyPackCmd) Run(env *Env) (err error) {
	in, err := os.Open(c.In)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(c.Out)
	if err != nil {
		return err
	}
	n, err := simulate.Pack(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(fmt.Errorf("pack %s: %w", c.In, err), os.Remove(c.Out))
	}
	fmt.Fprintf(env.Stdout, "%s: %d flows\n", c.Out, n)
	return nil
}

// newTable writes aligned columns.
func newTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) }
