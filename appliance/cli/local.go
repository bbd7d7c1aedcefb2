package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"patronus/appliance"
	"patronus/configs"
	"patronus/netstack"
	"patronus/netstack/path"
)

// local is shared by the commands that ask the appliance on this machine.
type local struct {
	DataDir string `help:"Where the appliance keeps its files." default:"/var/lib/patronus" env:"PATRONUS_DATA_DIR" type:"path"`
	Output  string `help:"table or json." short:"o" default:"table" enum:"table,json"`
}

func (l *local) client() *appliance.EdgeClient {
	return appliance.NewEdgeClient(appliance.EdgeSocket(l.DataDir))
}

// print writes v as JSON, or calls table.
func (l *local) print(w io.Writer, v any, table func(*tabwriter.Writer)) error {
	if l.Output == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	table(t)
	return t.Flush()
}

type runCmd struct {
	Config  string `help:"The configuration (YAML); patronus config reference prints a commented one. A site that was enrolled needs none." type:"path" placeholder:"FILE"`
	DataDir string `help:"Where to keep revisions, keys and history; default: what the configuration says." env:"PATRONUS_DATA_DIR" type:"path"`
	enrollFlags
	User uint32 `help:"Uid and gid of the node child when started as root." default:"65532"`
	appliance.NodeAddresses
}

// Run implements kong's command.
func (c *runCmd) Run(ctx context.Context, env *Env, log *slog.Logger) error {
	enroll, err := c.options(log)
	if err != nil {
		return err
	}
	return appliance.Supervise(ctx, appliance.SuperviseOptions{
		ConfigFile: c.Config, DataDir: c.DataDir, Enroll: enroll, NodeUser: c.User, Node: c.NodeAddresses, Logger: log, Reload: env.Reload,
	})
}

type edgeCmd struct {
	DataDir string `required:"" type:"path"`
}

// Run implements kong's command.
func (c *edgeCmd) Run(ctx context.Context, log *slog.Logger) error {
	return appliance.RunEdge(ctx, c.DataDir, log)
}

type nodeCmd struct {
	DataDir string `required:"" type:"path"`
	appliance.NodeAddresses
}

// Run implements kong's command.
func (c *nodeCmd) Run(ctx context.Context, log *slog.Logger) error {
	return appliance.RunNode(ctx, c.DataDir, c.NodeAddresses, log)
}

type reloadCmd struct {
	local
}

// Run implements kong's command.
func (c *reloadCmd) Run(_ context.Context, env *Env) error {
	pid, err := appliance.SignalReload(c.DataDir)
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Stdout, "asked process %d to read its configuration again; its log says whether it was taken\n", pid)
	return nil
}

type versionCmd struct{}

// Run implements kong's command.
func (c *versionCmd) Run(env *Env) error {
	_, err := fmt.Fprintln(env.Stdout, "patronus", appliance.Version)
	return err
}

type keygenCmd struct {
	Out string `help:"Write the private key to this file (mode 0600), and print the public key." type:"path" placeholder:"FILE"`
}

// Run implements kong's command.
func (c *keygenCmd) Run(env *Env) error {
	key := configs.GenerateKey()
	if c.Out == "" {
		_, err := fmt.Fprintf(env.Stdout, "private_key %s\npublic_key  %s\n", key.Reveal(), key.Public())
		return err
	}
	if err := key.WriteFile(c.Out); err != nil {
		return err
	}
	_, err := fmt.Fprintln(env.Stdout, key.Public())
	return err
}

type configCmd struct {
	Check     configCheckCmd     `cmd:"" help:"Validate configuration files; prints every problem with file:line:column."`
	Reference configReferenceCmd `cmd:"" help:"Print the commented reference of all settings."`
}

type configCheckCmd struct {
	Files []string `arg:"" name:"file" help:"YAML files." type:"path"`
}

// Run implements kong's command.
func (c *configCheckCmd) Run(env *Env) error {
	bad := false
	for _, name := range c.Files {
		text, err := os.ReadFile(name)
		if err == nil {
			_, err = configs.Parse(name, text)
		}
		if err != nil {
			bad = true
			fmt.Fprintln(env.Stderr, err)
			continue
		}
		fmt.Fprintf(env.Stdout, "%s: ok\n", name)
	}
	if bad {
		return &exitError{code: 1}
	}
	return nil
}

type configReferenceCmd struct{}

// Run implements kong's command.
func (c *configReferenceCmd) Run(env *Env) error {
	_, err := io.WriteString(env.Stdout, configs.Reference())
	return err
}

type statusCmd struct {
	local
}

// Run implements kong's command.
func (c *statusCmd) Run(ctx context.Context, env *Env) error {
	s, err := c.client().Status(ctx)
	if err != nil {
		return notRunning(err, c.DataDir)
	}
	all := wholeStatus{Status: s}
	// Traffic does not depend on the node, and neither does this command.
	if n, err := c.node().Status(ctx); err == nil {
		all.Node = n
	} else {
		all.NodeErr = err.Error()
	}
	return c.print(env.Stdout, all, func(t *tabwriter.Writer) {
		writeStatus(t, s)
		all.writeNode(t)
	})
}

// wholeStatus is the edge's state, and the node's beside it.
type wholeStatus struct {
	*netstack.Status
	Node    *appliance.NodeStatus `json:"node,omitempty"`
	NodeErr string                `json:"node_error,omitempty"`
}

func (w *wholeStatus) writeNode(t *tabwriter.Writer) {
	fmt.Fprintln(t)
	if w.Node == nil {
		fmt.Fprintf(t, "node\tnot running: %s\n", firstLine(w.NodeErr))
		return
	}
	n := w.Node
	switch {
	case n.History.Open:
		fmt.Fprintf(t, "history\t%d records, %s on disk\n", n.History.Head, size(n.History.Stats.Bytes))
	default:
		fmt.Fprintf(t, "history\tnot open: %s\n", dash(firstLine(n.History.Err)))
	}
	if n.Role.Holder == "" {
		fmt.Fprintf(t, "dashboard\t%s; nobody holds a term\n", n.Role.Role)
	} else {
		fmt.Fprintf(t, "dashboard\t%s; %s holds term %d\n", n.Role.Role, n.Role.Holder, n.Role.Term)
	}
	for i := range n.Exports {
		writeExport(t, &n.Exports[i])
	}
}

func writeExport(t *tabwriter.Writer, e *appliance.ExportState) {
	if e.Name == "" {
		fmt.Fprintf(t, "export\tnothing goes out from the %s: %s\n", e.From, firstLine(e.Err))
		return
	}
	how := "up"
	if !e.Up {
		how = "down: " + firstLine(e.Err)
	}
	fmt.Fprintf(t, "export\t%s (%s) %s; %s wait", e.Name, e.Kind, how, size(uint64(max(e.BacklogBytes, 0))))
	if lost := e.Lost.Samples + e.Lost.Flows + e.Lost.Events; lost > 0 {
		fmt.Fprintf(t, "; %d items lost", lost)
	}
	fmt.Fprintln(t)
}

func notRunning(err error, dir string) error {
	return fmt.Errorf("%w\nis an appliance running with --data-dir %s, and may you read its socket?", err, dir)
}

func writeStatus(t *tabwriter.Writer, s *netstack.Status) {
	fmt.Fprintf(t, "site\t%s (fabric %s)\n", s.Site, s.Fabric)
	fmt.Fprintf(t, "revision\t%d\n", s.Revision)
	fmt.Fprintf(t, "uptime\t%s\n", (time.Duration(s.Uptime) * time.Second).String())
	fmt.Fprintf(t, "overlay\t%s\n", s.Overlay)
	states := map[string]int{}
	for _, p := range s.Paths {
		states[p.State]++
	}
	fmt.Fprintf(t, "paths\t%d up, %d degraded, %d down, %d unknown\n", states["up"], states["degraded"], states["down"], states["unknown"])
	fmt.Fprintf(t, "flows\t%d live, %d since start, %d evicted\n", s.Flows.Live, s.Flows.Created, s.Flows.Evicted)
	fmt.Fprintf(t, "to WAN\t%d packets, %s\n", s.Counters.ToWAN.Forwarded, size(s.Counters.ToWAN.Bytes))
	fmt.Fprintf(t, "from WAN\t%d packets, %s\n", s.Counters.FromWAN.Forwarded, size(s.Counters.FromWAN.Bytes))
	for _, d := range []struct {
		name    string
		dropped map[string]uint64
	}{{"dropped to WAN", s.Counters.ToWAN.Dropped}, {"dropped from WAN", s.Counters.FromWAN.Dropped}} {
		if len(d.dropped) > 0 {
			fmt.Fprintf(t, "%s\t%s\n", d.name, countsByName(d.dropped))
		}
	}
	fmt.Fprintln(t)
	fmt.Fprintln(t, "UPLINK\tCARRIER\tPUBLIC KEY")
	for _, u := range s.Uplinks {
		fmt.Fprintf(t, "%s\t%s\t%s\n", u.Name, yesNo(u.Carrier), u.PublicKey)
	}
	if len(s.Policies) > 0 {
		fmt.Fprintln(t)
		fmt.Fprintln(t, "POLICY\tMODE\tALLOWED FLOWS\tDENIED FLOWS\tSTAGED WOULD CHANGE")
		for _, p := range s.Policies {
			fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\n", p.Policy, p.Mode, p.Allowed, p.Denied, p.Staged)
		}
	}
	fmt.Fprintln(t)
	fmt.Fprintln(t, "LAN PORT\tKIND\tRECEIVED\tSENT\tDROPPED")
	for _, p := range s.Ports {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", p.Name, p.Kind, size(p.RxBytes), size(p.TxBytes), countsByName(p.Dropped))
	}
	if len(s.Devices) > 0 {
		fmt.Fprintln(t)
		fmt.Fprintln(t, "DEVICE\tUPLINK\tENDPOINT\tLAST HANDSHAKE\tRECEIVED\tSENT")
		for _, d := range s.Devices {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", d.Name, d.Uplink, d.Endpoint, ago(d.LastHandshake), size(d.RxBytes), size(d.TxBytes))
		}
	}
}

type pathsCmd struct {
	local
}

// Run implements kong's command.
func (c *pathsCmd) Run(ctx context.Context, env *Env) error {
	s, err := c.client().Status(ctx)
	if err != nil {
		return notRunning(err, c.DataDir)
	}
	return c.print(env.Stdout, s.Paths, func(t *tabwriter.Writer) { writePaths(t, s.Paths) })
}

func writePaths(t *tabwriter.Writer, paths []netstack.PathStatus) {
	fmt.Fprintln(t, "PATH\tSTATE\tRTT\tPDV p95\tLOSS out/in\tSCORE\tTX\tRX\tMTU\tENDPOINT\tWHY")
	for i := range paths {
		p := &paths[i]
		m := &p.Metrics
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s/%s\t%s\t%s\t%s\t%d\t%s\t%s\n", p.ID, p.State, millis(m.Latency), millis(m.PDVp95),
			percent(m.LossOut), percent(m.LossIn), score(p.Scores), mbps(m.Tx), mbps(m.Rx), p.MTU, p.Endpoint, p.Why)
	}
}

type flowsCmd struct {
	local
	Limit int    `help:"At most this many." default:"50"`
	Drop  string `help:"Forget this flow (a flow_key of --output json), so that its next packet is judged anew." placeholder:"KEY"`
}

// Run implements kong's command.
func (c *flowsCmd) Run(ctx context.Context, env *Env) error {
	if c.Drop != "" {
		return c.client().Reevaluate(ctx, c.Drop)
	}
	flows, err := c.client().Flows(ctx, c.Limit)
	if err != nil {
		return notRunning(err, c.DataDir)
	}
	return c.print(env.Stdout, flows, func(t *tabwriter.Writer) { writeFlows(t, flows) })
}

func writeFlows(t *tabwriter.Writer, flows []netstack.FlowStatus) {
	fmt.Fprintln(t, "SOURCE\tDESTINATION\tPROTO\tPORT\tSTATUS\tCLASS\tPATH\tPOLICY\tSENT\tRECEIVED\tAGE")
	for i := range flows {
		f := &flows[i]
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.Src, f.Dst, f.Protocol, f.Port, f.Status, f.Class,
			dash(string(f.Path)), dash(f.Policy), size(f.Bytes), size(f.Reverse.Bytes), time.Since(f.Created).Round(time.Second))
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return time.Since(t).Round(time.Second).String() + " ago"
}

func millis(v path.Value) string {
	if math.IsNaN(float64(v)) {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", float64(v))
}

func percent(v path.Value) string {
	if math.IsNaN(float64(v)) {
		return "-"
	}
	return fmt.Sprintf("%.2f%%", float64(v))
}

func mbps(v path.Value) string { return rate(float64(v) * 1e6) }

func score(scores map[string]path.Score) string {
	s, ok := scores[path.DefaultClass]
	if !ok || s == path.NoScore {
		return "-"
	}
	return fmt.Sprint(int(s))
}

func rate(bits float64) string {
	switch {
	case bits >= 1e9:
		return fmt.Sprintf("%.2f Gb/s", bits/1e9)
	case bits >= 1e6:
		return fmt.Sprintf("%.1f Mb/s", bits/1e6)
	case bits >= 1e3:
		return fmt.Sprintf("%.0f kb/s", bits/1e3)
	}
	return fmt.Sprintf("%.0f b/s", bits)
}

func size(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

func countsByName(m map[string]uint64) string {
	var parts []string
	for _, k := range sortedKeys(m) {
		parts = append(parts, fmt.Sprintf("%s %d", k, m[k]))
	}
	return dash(strings.Join(parts, ", "))
}
