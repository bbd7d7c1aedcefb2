package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	"patronus/appliance"
	"patronus/configs"
)

// enrollFlags are how an appliance is told to become a site.
type enrollFlags struct {
	Token     string   `help:"An enrollment token: makes this machine a site first, if it is none yet." env:"PATRONUS_TOKEN" placeholder:"TOKEN"`
	TokenFile string   `help:"A file with an enrollment token. It is ignored once the machine is a site." type:"path" placeholder:"FILE"`
	Uplink    []string `help:"The interface of an uplink that the token's dashboard has planned." placeholder:"NAME=INTERFACE"`
	LAN       []string `name:"lan" sep:"none" help:"A LAN port, instead of what the dashboard has: KIND is packet or tun, ADDRESS is the port's own with its prefix." placeholder:"KIND:INTERFACE:ADDRESS[,ADDRESS]"`
}

// options are nil if there is no token.
func (f *enrollFlags) options(log *slog.Logger) (*appliance.EnrollOptions, error) {
	if f.Token == "" && f.TokenFile == "" {
		return nil, nil
	}
	if f.Token == "" {
		if _, err := os.Stat(f.TokenFile); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	file := f.TokenFile
	if f.Token != "" {
		file = ""
	}
	token, err := appliance.ReadToken(f.Token, file)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	o := &appliance.EnrollOptions{Token: token, Logger: log, Uplinks: map[string]string{}}
	for _, u := range f.Uplink {
		name, iface, ok := strings.Cut(u, "=")
		if !ok {
			return nil, fmt.Errorf("%w: --uplink %q is not NAME=INTERFACE", ErrUsage, u)
		}
		o.Uplinks[name] = iface
	}
	for i, text := range f.LAN {
		p, err := lanPort(i, text)
		if err != nil {
			return nil, fmt.Errorf("%w: --lan %q: %w", ErrUsage, text, err)
		}
		o.LAN = append(o.LAN, p)
	}
	return o, nil
}

// lanPort reads KIND:INTERFACE:ADDRESS[,ADDRESS].
func lanPort(i int, text string) (configs.LANPort, error) {
	kind, rest, _ := strings.Cut(text, ":")
	iface, addresses, ok := strings.Cut(rest, ":")
	if !ok {
		return configs.LANPort{}, errors.New("not KIND:INTERFACE:ADDRESS")
	}
	p := configs.LANPort{Name: fmt.Sprintf("lan%d", i), Kind: configs.LANKind(kind), Interface: iface}
	if p.Kind != configs.LANPacket && p.Kind != configs.LANTUN {
		return p, errors.New("the kind is packet or tun")
	}
	for a := range strings.SplitSeq(addresses, ",") {
		at, err := netip.ParsePrefix(a)
		if err != nil {
			return p, err
		}
		p.Addresses = append(p.Addresses, at)
	}
	return p, nil
}

type enrollCmd struct {
	Token   string   `arg:"" help:"The token, as the dashboard shows it."`
	DataDir string   `help:"Where the appliance keeps its files." name:"dir" aliases:"data-dir" default:"/var/lib/patronus" env:"PATRONUS_DATA_DIR" type:"path"`
	Uplink  []string `help:"The interface of an uplink that the dashboard has planned." placeholder:"NAME=INTERFACE"`
	LAN     []string `name:"lan" sep:"none" help:"A LAN port, instead of what the dashboard has." placeholder:"KIND:INTERFACE:ADDRESS[,ADDRESS]"`
	Wait    bool     `help:"Try again while the dashboard cannot be reached."`
}

// Help is what patronus enroll --help adds.
func (c *enrollCmd) Help() string {
	return `The keys of the machine are made here and never leave it. The token says where the dashboard is, what its certificate
is and whose configuration counts; it is good once. Afterwards patronus run needs no configuration file:

  patronus enroll patronus1.AAAA...
  patronus run

Where no uplinks were planned, every interface with a default route becomes one. patronus run --token does both.`
}

// Run implements kong's command.
func (c *enrollCmd) Run(ctx context.Context, env *Env, log *slog.Logger) error {
	f := enrollFlags{Token: c.Token, Uplink: c.Uplink, LAN: c.LAN}
	o, err := f.options(log)
	if err != nil {
		return err
	}
	o.DataDir = c.DataDir
	do := appliance.Enroll
	if c.Wait {
		do = appliance.EnrollUntil
	}
	rev, err := do(ctx, *o)
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Stdout, "%s is a site of %s, with revision %d; start it with: patronus run --data-dir %s\n", rev.Site, rev.Fabric, rev.Number, c.DataDir)
	return nil
}
