package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"patronus/appliance"
	"patronus/netstack"
)

type captureCmd struct {
	DataDir  string        `help:"Where the appliance keeps its files." default:"/var/lib/patronus" env:"PATRONUS_DATA_DIR" type:"path"`
	Point    string        `help:"Where packets are seen, in the clear: lan (what hosts of this site send), wan (what tunnels deliver), an uplink's name, or a path's id. Default: everywhere."`
	Filter   string        `help:"Which packets: terms joined by and, such as 'src net 10.1.0.0/16 and tcp and not port 22'." placeholder:"TERMS"`
	Write    string        `help:"Write to this file; - is standard output." short:"w" default:"-" placeholder:"FILE"`
	Packets  int           `help:"Stop after this many packets." placeholder:"N"`
	Bytes    int           `help:"Stop after this many bytes." placeholder:"N"`
	Duration time.Duration `help:"Stop after this long." default:"1m"`
	SnapSize int           `help:"Bytes kept of each packet; 0 keeps all." default:"0"`
}

// Help is what patronus capture --help adds.
func (c *captureCmd) Help() string {
	return `The file is pcapng: Wireshark and tcpdump -r read it. The interface of each packet says what was decided
about it: "to_wan hq.wan0~east.wan0" left over that path, "from_wan dropped denied" came in and a policy said no.

  patronus capture --point lan --filter 'host 10.1.0.20' -w printer.pcapng
  patronus capture --duration 10s | wireshark -k -i -`
}

// Run implements kong's command.
func (c *captureCmd) Run(ctx context.Context, env *Env) (err error) {
	if c.Packets < 0 || c.Bytes < 0 || c.SnapSize < 0 || c.Duration < 0 {
		return fmt.Errorf("%w: packets, bytes, snap-size and duration are not negative", ErrUsage)
	}
	var out io.Writer = env.Stdout
	if c.Write == "-" && env.Terminal {
		return fmt.Errorf("%w: packets are not for a terminal: give --write FILE, or pipe to wireshark -k -i -", ErrUsage)
	}
	if c.Write != "-" {
		f, err := os.OpenFile(c.Write, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return fmt.Errorf("capture: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	// The first interrupt ends the capture in order.
	stopped, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	edge := appliance.NewEdgeClient(appliance.EdgeSocket(c.DataDir))
	defer edge.Close()
	res, err := edge.Capture(stopped, netstack.CaptureOptions{
		Point: c.Point, Filter: c.Filter, SnapSize: c.SnapSize, Packets: c.Packets, Bytes: c.Bytes, Duration: c.Duration,
	}, out)
	if stopped.Err() != nil {
		fmt.Fprintln(env.Stderr, "stopped")
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Stderr, "%d packets, %d bytes", res.Packets, res.Bytes)
	if res.Missed > 0 {
		fmt.Fprintf(env.Stderr, "; %d more passed too fast to be kept", res.Missed)
	}
	fmt.Fprintln(env.Stderr)
	return nil
}
