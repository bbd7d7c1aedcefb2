// Package cli owns the command line of patronus: its commands, their help and
// what they print.
//
// A command parses, calls one function of another package and prints; nothing
// is decided here. Tables are for people, --output json is for scripts.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

// Env is what a command may use of the process it runs in.
type Env struct {
	Args   []string // without the program's name
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Terminal says that Stdout is one: tables may redraw themselves.
	Terminal bool
	Reload   <-chan os.Signal // SIGHUP
}

// commands is the tree that kong parses.
type commands struct {
	LogLevel string `help:"What to log: debug, info, warn or error." default:"info" enum:"debug,info,warn,error" env:"PATRONUS_LOG_LEVEL"`

	Run        runCmd        `cmd:"" help:"Run this appliance: the gateway of one site."`
	Lab        labCmd        `cmd:"" help:"Run a whole fabric in this process, without any privilege, and watch it."`
	Status     statusCmd     `cmd:"" help:"Show what the appliance on this machine is doing."`
	Paths      pathsCmd      `cmd:"" help:"List the paths of the appliance on this machine, with their quality."`
	Flows      flowsCmd      `cmd:"" help:"List the flows of the appliance on this machine."`
	Explain    explainCmd    `cmd:"" help:"Say what becomes of a packet, and why: policies, class, paths."`
	Capture    captureCmd    `cmd:"" help:"Show packets as they pass, as pcapng for Wireshark, with what was decided about them."`
	Config     configCmd     `cmd:"" help:"Check a configuration, or print the reference."`
	Policy     policyCmd     `cmd:"" help:"Check policies, and try them without a network."`
	Reload     reloadCmd     `cmd:"" help:"Make the running appliance read its configuration again."`
	Promote    promoteCmd    `cmd:"" help:"Make the appliance on this machine the dashboard of its fabric."`
	Demote     demoteCmd     `cmd:"" help:"Take the dashboard role from the appliance on this machine; its history stays."`
	Keygen     keygenCmd     `cmd:"" help:"Make a WireGuard key for an uplink."`
	Enroll     enrollCmd     `cmd:"" help:"Make this machine a site of a fabric, by a one-time token of its dashboard."`
	Root       rootCmd       `cmd:"" help:"Print the root keys that this appliance trusts."`
	Join       joinCmd       `cmd:"" help:"Let a dashboard configure this site."`
	Leave      leaveCmd      `cmd:"" help:"Let no dashboard configure this site any more."`
	Login      loginCmd      `cmd:"" help:"Sign in at a dashboard, for the commands that ask it."`
	Logout     logoutCmd     `cmd:"" help:"Sign out of the dashboard."`
	Whoami     whoamiCmd     `cmd:"" help:"Show who one is at the dashboard, and what one may do there."`
	Get        getCmd        `cmd:"" help:"List or show what a dashboard knows: sites, paths, flows, policies, events and more."`
	Apply      applyCmd      `cmd:"" help:"Bring policies, or the whole network, from files to a dashboard."`
	Delete     deleteCmd     `cmd:"" help:"Remove a site, policy, endpoint, rule, user or token at a dashboard."`
	Audit      auditCmd      `cmd:"" help:"Check or export the audit log of a dashboard."`
	Openapi    openapiCmd    `cmd:"" help:"Print the description of the dashboard's API (OpenAPI 3.1)."`
	Image      imageCmd      `cmd:"" help:"Update the appliance that was started from an image, or verify a release."`
	Completion completionCmd `cmd:"" help:"Print completion for a shell: bash, zsh or fish."`
	Version    versionCmd    `cmd:"" help:"Print the version."`

	Edge edgeCmd `cmd:"" hidden:"" help:"The child that owns packets and keys."`
	Node nodeCmd `cmd:"" hidden:"" help:"The child that owns history and the dashboard."`
}

// ErrUsage is wrapped by errors that are the user's: exit status 2.
var ErrUsage = errors.New("usage")

// exitError carries a command's own exit status.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// Main runs one command and returns the exit status.
func Main(ctx context.Context, env Env) int {
	err := run(ctx, env)
	var exit *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if exit.err != nil {
			fmt.Fprintln(env.Stderr, exit.err)
		}
		return exit.code
	case errors.Is(err, ErrUsage):
		fmt.Fprintln(env.Stderr, "patronus:", err)
		return 2
	default:
		fmt.Fprintln(env.Stderr, "patronus:", err)
		return 1
	}
}

// quit is how kong ends a --help.
type quit int

func run(ctx context.Context, env Env) (err error) {
	defer func() {
		if v := recover(); v != nil {
			code, ok := v.(quit)
			if !ok {
				panic(v)
			}
			err = nil
			if code != 0 {
				err = &exitError{code: int(code)}
			}
		}
	}()
	var cmds commands
	parser, err := kong.New(&cmds,
		kong.Name("patronus"),
		kong.Description("An SD-WAN appliance: WireGuard tunnels over every uplink, path choice, policy and history, in user space."),
		kong.Writers(env.Stdout, env.Stderr),
		kong.Exit(func(code int) { panic(quit(code)) }),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, WrapUpperBound: 100}),
	)
	if err != nil {
		return fmt.Errorf("command line: %w", err)
	}
	args := twoDashes(env.Args)
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return fmt.Errorf("%w: %w (patronus --help, or patronus COMMAND --help, lists what there is)", ErrUsage, err)
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(cmds.LogLevel)); err != nil {
		return fmt.Errorf("%w: log level: %w", ErrUsage, err)
	}
	log := slog.New(slog.NewTextHandler(env.Stderr, &slog.HandlerOptions{Level: level}))
	parsed.BindTo(ctx, (*context.Context)(nil))
	parsed.Bind(parser.Model)
	return parsed.Run(&env, log)
}

// twoDashes lets long flags be written with one dash: -config is --config. A
// single letter stays a short flag.
func twoDashes(args []string) []string {
	out := make([]string, 0, len(args))
	for i, a := range args {
		if a == "--" {
			return append(out, args[i:]...)
		}
		name, _, _ := strings.Cut(a, "=")
		if len(name) > 2 && name[0] == '-' && name[1] >= 'a' && name[1] <= 'z' {
			a = "-" + a
		}
		out = append(out, a)
	}
	return out
}
