package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"patronus/appliance"
	"patronus/configs"
	"patronus/dashboard/collect"
)

func (l *local) node() *appliance.NodeClient {
	return appliance.NewNodeClient(appliance.NodeSocket(l.DataDir))
}

// declare changes this appliance's role, with the key that only its operator can
// read.
func (l *local) declare(ctx context.Context, dashboard bool) (uint64, error) {
	key, err := configs.LoadRootKey(appliance.SigningKeyFile(l.DataDir))
	if err != nil {
		return 0, fmt.Errorf("%w\npromotion and demotion need the appliance's own key: run this on the appliance, as the user that runs it", err)
	}
	return appliance.Promote(ctx, l.node(), key, dashboard)
}

type promoteCmd struct {
	local
	DryRun bool `help:"Say what would happen, and what history the sites have; change nothing."`
	NoWait bool `help:"Return at once instead of when all history has arrived."`
}

// Run implements kong's command.
func (c *promoteCmd) Run(ctx context.Context, env *Env) error {
	node := c.node()
	role, err := node.Role(ctx)
	if err != nil {
		return notRunning(err, c.DataDir)
	}
	if c.DryRun {
		reach, err := node.Survey(ctx)
		if err != nil {
			return err
		}
		plan := promotion{Role: *role, Term: role.Next(), Sites: reach}
		return c.print(env.Stdout, plan, func(t *tabwriter.Writer) { plan.write(t) })
	}
	if role.Role != appliance.RoleDashboard {
		term, err := c.declare(ctx, true)
		if err != nil {
			return err
		}
		if c.Output == "table" {
			fmt.Fprintf(env.Stdout, "%s is a dashboard, in term %d\n", role.Site, term)
		}
	}
	if c.NoWait {
		return nil
	}
	report, err := c.wait(ctx, env, node)
	if err != nil {
		return err
	}
	return c.print(env.Stdout, report, func(t *tabwriter.Writer) { writeCollected(t, report) })
}

// promotion is what a promotion would do.
type promotion struct {
	Role  appliance.RoleStatus `json:"role"`
	Term  uint64               `json:"term"` // that it would take
	Sites []appliance.Reach    `json:"sites"`
}

func (p *promotion) write(t *tabwriter.Writer) {
	switch {
	case p.Role.Role == appliance.RoleDashboard:
		fmt.Fprintf(t, "%s is the dashboard already, in term %d; nothing would change\n\n", p.Role.Site, p.Role.Term)
	case p.Role.Holder != "":
		fmt.Fprintf(t, "%s would take over from %s, in term %d; %s would stand by: it goes on collecting, and commits nothing\n\n",
			p.Role.Site, p.Role.Holder, p.Term, p.Role.Holder)
	default:
		fmt.Fprintf(t, "%s would become the dashboard, in term %d; nobody is now\n\n", p.Role.Site, p.Term)
	}
	fmt.Fprintln(t, "SITE\tRECORDS\tVERSION\tCLOCK\tWHY NOT")
	for _, s := range p.Sites {
		if s.Err != "" {
			fmt.Fprintf(t, "%s\t-\t-\t-\t%s\n", s.Site, firstLine(s.Err))
			continue
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%+d ms\t\n", s.Site, s.Records, s.Version, s.SkewMS)
	}
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// wait shows how history arrives until it is complete. Sites that cannot be
// reached are waited for until there is nothing else to wait for.
func (c *promoteCmd) wait(ctx context.Context, env *Env, node *appliance.NodeClient) (*collect.Report, error) {
	const (
		look    = 500 * time.Millisecond
		settled = 10 * time.Second // without progress, with only unreached sites left
	)
	tick := time.NewTicker(look)
	defer tick.Stop()
	bar := progressBar{w: env.Stdout, on: env.Terminal && c.Output == "table"}
	moved, have := time.Now(), uint64(0)
	for {
		r, err := node.Progress(ctx)
		switch {
		case errors.Is(err, appliance.ErrNode) && time.Since(moved) < settled:
			// The store is being opened.
		case err != nil:
			return nil, err
		default:
			bar.draw(r)
			if r.Have != have {
				moved, have = time.Now(), r.Have
			}
			if r.Complete || r.Have == r.Want && time.Since(moved) > settled {
				bar.end()
				return r, nil
			}
		}
		select {
		case <-ctx.Done():
			bar.end()
			return nil, fmt.Errorf("%w; the appliance goes on by itself", ctx.Err())
		case <-tick.C:
		}
	}
}

// progressBar redraws one line of a terminal.
type progressBar struct {
	w     io.Writer
	on    bool
	drawn bool
}

func (b *progressBar) draw(r *collect.Report) {
	if !b.on {
		return
	}
	const width = 40
	done := 0
	if r.Want > 0 {
		done = int(r.Have * width / r.Want)
	}
	fmt.Fprintf(b.w, "\r[%s%s] %d of %d records, %d of %d sites reached ",
		strings.Repeat("#", done), strings.Repeat(".", width-done), r.Have, r.Want, len(r.Sites)-len(r.Unreached), len(r.Sites))
	b.drawn = true
}

func (b *progressBar) end() {
	if b.drawn {
		fmt.Fprintln(b.w)
	}
}

func writeCollected(t *tabwriter.Writer, r *collect.Report) {
	switch {
	case r.Complete:
		fmt.Fprintf(t, "complete: %d records of %d sites, nothing missing\n\n", r.Have, len(r.Sites))
	default:
		fmt.Fprintf(t, "%d of %d records; not reached: %s\n\n", r.Have, r.Want, dash(strings.Join(r.Unreached, ", ")))
	}
	fmt.Fprintln(t, "SITE\tSTATE\tRECORDS\tMISSING\tDAMAGED\tCLOCK\tWHY")
	for i := range r.Sites {
		s := &r.Sites[i]
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%+d ms\t%s\n", s.Site, s.State, s.Head, s.Gap(), s.Damaged.Len(), s.SkewMS, dash(firstLine(s.Err)))
	}
}

type demoteCmd struct {
	local
	DryRun bool `help:"Say what would happen; change nothing."`
}

// Run implements kong's command.
func (c *demoteCmd) Run(ctx context.Context, env *Env) error {
	role, err := c.node().Role(ctx)
	if err != nil {
		return notRunning(err, c.DataDir)
	}
	switch {
	case role.Role == appliance.RoleNone:
		return fmt.Errorf("%s is no dashboard", role.Site)
	case c.DryRun && role.Role == appliance.RoleDashboard:
		_, err = fmt.Fprintf(env.Stdout, "%s would stop being the dashboard; nobody would be one until somebody is promoted; its history stays\n", role.Site)
		return err
	case c.DryRun:
		_, err = fmt.Fprintf(env.Stdout, "%s would stop standing by; %s stays the dashboard; the history at %s stays\n", role.Site, dash(role.Holder), role.Site)
		return err
	}
	term, err := c.declare(ctx, false)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Stdout, "%s is no dashboard any more, by term %d; its history stays\n", role.Site, term)
	return err
}
