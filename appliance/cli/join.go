package cli

import (
	"fmt"

	"patronus/appliance"
	"patronus/configs"
)

type rootCmd struct {
	DataDir string `help:"Where the appliance keeps its files." default:"/var/lib/patronus" env:"PATRONUS_DATA_DIR" type:"path"`
}

// Help is what patronus root --help adds.
func (c *rootCmd) Help() string {
	return `Each appliance signs its configuration with a root key that it made itself. A dashboard configures other sites
once they have joined its root: patronus join KEY, on each of them.`
}

// Run implements kong's command.
func (c *rootCmd) Run(env *Env) error {
	own, joined, err := appliance.Roots(c.DataDir)
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Stdout, "own     %s  fingerprint %s\n", configs.FormatRoot(own), configs.Fingerprint(own))
	if joined != nil {
		fmt.Fprintf(env.Stdout, "joined  %s  fingerprint %s\n", configs.FormatRoot(joined), configs.Fingerprint(joined))
	}
	return nil
}

type joinCmd struct {
	Root    string `arg:"" help:"The root key of the dashboard's appliance: patronus root prints it there."`
	DataDir string `help:"Where the appliance keeps its files." default:"/var/lib/patronus" env:"PATRONUS_DATA_DIR" type:"path"`
	DryRun  bool   `help:"Say what would change, and change nothing."`
}

// Help is what patronus join --help adds.
func (c *joinCmd) Help() string {
	return `From then on this site takes the configuration that a dashboard with that root sends, beside its own file; once it
has taken one, its file no longer counts. It never takes one that gives its LAN to another site, or cuts it off. patronus
leave undoes it; nothing that is running changes by either.`
}

// Run implements kong's command.
func (c *joinCmd) Run(env *Env) error {
	root, err := configs.ParseRoot(c.Root)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	if c.DryRun {
		own, joined, err := appliance.Roots(c.DataDir)
		if err != nil {
			return err
		}
		now := "no other root than its own, " + configs.Fingerprint(own)
		if joined != nil {
			now = "the root " + configs.Fingerprint(joined)
		}
		fmt.Fprintf(env.Stdout, "would trust the root %s; trusts %s now\n", configs.Fingerprint(root), now)
		return nil
	}
	if err := appliance.Join(c.DataDir, root); err != nil {
		return err
	}
	fmt.Fprintf(env.Stdout, "joined the root with the fingerprint %s: compare it with what the dashboard shows\n", configs.Fingerprint(root))
	return nil
}

type leaveCmd struct {
	DataDir string `help:"Where the appliance keeps its files." default:"/var/lib/patronus" env:"PATRONUS_DATA_DIR" type:"path"`
}

// Run implements kong's command.
func (c *leaveCmd) Run(env *Env) error {
	if err := appliance.Leave(c.DataDir); err != nil {
		return err
	}
	fmt.Fprintln(env.Stdout, "left: this site keeps its configuration, and takes none from a dashboard any more")
	return nil
}
