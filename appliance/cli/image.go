package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"patronus/appliance"
	"patronus/image/pid1"
	"patronus/image/release"
	"patronus/image/slot"
)

type imageCmd struct {
	Status imageStatusCmd `cmd:"" help:"Show which image runs, what is in the other slot, and how the last update went."`
	Update imageUpdateCmd `cmd:"" help:"Install a signed update into the other slot; it is tried at the next restart."`
	Verify imageVerifyCmd `cmd:"" help:"Verify a downloaded release, or one update file, before it is used."`
}

type imageStatusCmd struct {
	Output string `help:"table or json." short:"o" default:"table" enum:"table,json"`
}

// Run implements kong's command.
func (c *imageStatusCmd) Run(env *Env) error {
	m, err := slot.DefaultPaths().Machine()
	if err != nil {
		return err
	}
	names, err := m.Dir.List()
	if err != nil {
		return fmt.Errorf("slots: %w", err)
	}
	v := struct {
		Running release.Info `json:"running"`
		Slots   []slot.Entry `json:"slots"`
		*slot.State
	}{m.Running, slot.Entries(names), m.State}
	l := local{Output: c.Output}
	return l.print(env.Stdout, v, func(t *tabwriter.Writer) {
		fmt.Fprintf(t, "running\t%s (%d, %s)\n", m.Running.Version, m.Running.Seq, m.Running.Arch)
		fmt.Fprintf(t, "oldest accepted\t%d\n", m.State.Floor)
		for _, e := range v.Slots {
			fmt.Fprintf(t, "slot\t%s\t%s\n", e.Name(), slotState(e, m.Running.Seq))
		}
		if f := m.State.Failed; f != nil {
			fmt.Fprintf(t, "given up\t%s (%d): %s\n", f.Version, f.Seq, f.Why)
		}
	})
}

func slotState(e slot.Entry, running uint64) string {
	switch {
	case e.Seq == running && e.Trial:
		return "running, on trial"
	case e.Seq == running:
		return "running"
	case !e.Trial:
		return "ran well"
	case e.Left > 0:
		return fmt.Sprintf("is tried at the next restart, %d times at most", e.Left)
	}
	return "has failed"
}

type imageUpdateCmd struct {
	Source string `arg:"" help:"The .update file, or its http or https address."`
	DryRun bool   `help:"Verify everything and change nothing."`
	Tries  int    `help:"How often a start may fail before the image that runs now is taken again." default:"3"`
	Reboot bool   `help:"Restart at once when it is installed."`
}

// Run implements kong's command.
func (c *imageUpdateCmd) Run(ctx context.Context, env *Env) error {
	in, err := openSource(ctx, c.Source)
	if err != nil {
		return err
	}
	defer in.Close()
	// An appliance that is not running now need not run after the update either.
	status, statusErr := NewGateway("/var/lib/patronus").Status(ctx)
	options := slot.Options{
		Tries: c.Tries, DryRun: c.DryRun, Now: time.Now(), Expect: pid1.Expect(status, statusErr),
		Progress: imageProgress(env.Stdout, env.Terminal, time.Now),
	}
	var manifest *release.Manifest
	paths := slot.DefaultPaths()
	err = paths.Locked(func() error {
		m, err := paths.Machine()
		if err != nil {
			return err
		}
		manifest, err = m.Install(ctx, in, options)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", c.Source, err)
	}
	if c.DryRun {
		fmt.Fprintf(env.Stdout, "%s (%d) is signed and newer; nothing was changed\n", manifest.Version, manifest.Seq)
		return nil
	}
	fmt.Fprintf(env.Stdout, "%s (%d) is installed and tried at the next restart\n", manifest.Version, manifest.Seq)
	if c.Reboot {
		return pid1.RequestRestart()
	}
	return nil
}

// openSource opens a file or an address. An address that stalls is given up.
func openSource(ctx context.Context, source string) (io.ReadCloser, error) {
	if !strings.HasPrefix(source, "http://") && !strings.HasPrefix(source, "https://") {
		return os.Open(source)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	client := &http.Client{Timeout: 30 * time.Minute, Transport: &http.Transport{ResponseHeaderTimeout: 30 * time.Second, Proxy: http.ProxyFromEnvironment}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("fetch %s: %s", source, resp.Status)
	}
	return resp.Body, nil
}

// imageProgress draws a bar on a terminal, and a line for each tenth elsewhere.
func imageProgress(w io.Writer, terminal bool, now func() time.Time) func(done, total int64) {
	var shown time.Time
	tenth := int64(-1)
	return func(done, total int64) {
		if total <= 0 {
			return
		}
		if !terminal {
			if t := 10 * done / total; t > tenth {
				tenth = t
				fmt.Fprintf(w, "%3d %% of %.1f MB\n", 10*t, float64(total)/1e6)
			}
			return
		}
		if at := now(); done == total || at.Sub(shown) >= 100*time.Millisecond {
			shown = at
			const width = 40
			filled := int(width * done / total)
			fmt.Fprintf(w, "\r[%s%s] %3d %%", strings.Repeat("#", filled), strings.Repeat(".", width-filled), 100*done/total)
			if done == total {
				fmt.Fprintln(w)
			}
		}
	}
}

type imageVerifyCmd struct {
	Key  string `help:"The public key, image.pub of a release that you trust." required:"" type:"path"`
	Path string `arg:"" help:"A directory with SHA256SUMS, or an .update file." type:"path"`
}

// Run implements kong's command.
func (c *imageVerifyCmd) Run(env *Env) error {
	keys, err := release.LoadKeys(c.Key)
	if err != nil {
		return err
	}
	info, err := os.Stat(c.Path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		good, err := release.VerifySums(c.Path, keys)
		for _, name := range good {
			fmt.Fprintf(env.Stdout, "%s: as signed\n", name)
		}
		return err
	}
	f, err := os.Open(c.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	m, payload, err := release.Open(f, keys)
	if err == nil {
		_, err = io.Copy(io.Discard, payload)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.Path, err)
	}
	fmt.Fprintf(env.Stdout, "%s: as signed: %s (%d) for %s\n", c.Path, m.Version, m.Seq, m.Arch)
	return nil
}

// gateway tells the first process of a machine how the gateway does.
type gateway struct {
	edge *appliance.EdgeClient
	node *appliance.NodeClient
}

// dashboardSilence is after how long without a question a dashboard counts as
// not reached. It asks every few seconds.
const dashboardSilence = time.Minute

// NewGateway asks the gateway that keeps its files in a data directory.
func NewGateway(dataDir string) pid1.Gateway {
	return gateway{appliance.NewEdgeClient(appliance.EdgeSocket(dataDir)), appliance.NewNodeClient(appliance.NodeSocket(dataDir))}
}

// Status implements pid1.Gateway.
func (g gateway) Status(ctx context.Context) (pid1.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s, err := g.edge.Status(ctx)
	if err != nil {
		return pid1.Status{}, errors.Join(errors.New("the gateway does not answer"), err)
	}
	out := pid1.Status{Fabric: s.Fabric, Site: s.Site, Revision: s.Revision, Paths: len(s.Paths)}
	for i := range s.Paths {
		if st := s.Paths[i].State; st == "up" || st == "degraded" {
			out.PathsUp++
		}
	}
	// Without a node there is no history and no dashboard; packets go on.
	if n, err := g.node.Status(ctx); err == nil {
		out.Dashboard = n.Role.Role != appliance.RoleNone || time.Since(n.DashboardAskedAt) < dashboardSilence
	}
	return out, nil
}
