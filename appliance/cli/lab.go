package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"patronus/appliance/lab"
	"patronus/configs"
	"patronus/e2e/vnet"
)

type labCmd struct {
	Sites    int           `help:"How many sites." default:"3"`
	JSON     bool          `name:"json" help:"Print one JSON object a second instead of the table."`
	Duration time.Duration `help:"Stop after this time; 0 means never." default:"0s"`
	Delay    time.Duration `help:"One-way delay of every uplink, instead of each line's own."`
	Jitter   time.Duration `help:"Jitter of every uplink."`
	Loss     float64       `help:"Loss of every uplink, percent."`
	Rate     int64         `help:"Rate of every uplink, Mbit/s."`
	MTU      int           `name:"mtu" help:"MTU of every uplink, bytes."`
	Topology string        `help:"full-mesh or hub-and-spoke; default: a mesh of up to 8 sites, else spokes around hq." enum:",full-mesh,hub-and-spoke" default:""`
	Seed     uint64        `help:"Seed of all chance; default: a new one, which is printed."`
	Listen   string        `help:"Where to listen for HTTP verbs that break and heal uplinks; empty: nowhere." default:"127.0.0.1:0"`
	Idle     bool          `help:"Start no traffic."`
	Promote  string        `help:"Promote hq to dashboard and listen there: an address, auto (127.0.0.1:8443, or another port if that is taken; of up to 12 sites), or off." default:"auto"`
	Data     string        `help:"Where history and the dashboard's accounts are kept; default: a directory that goes with the lab." type:"path" placeholder:"DIR"`
}

// Help teaches kong's --help.
func (c *labCmd) Help() string {
	return `Three real appliances in this process, each with two uplinks: its own WireGuard
devices, its own gVisor stack, and a host behind it that makes calls (UDP) and
transfers (TCP). Nothing is simulated but the internet between them.

In a terminal, press the letter in front of an uplink to break or heal it, and q
to quit. From elsewhere:

  curl -X POST http://ADDRESS/uplinks/hq.wan0/break
  curl -X POST http://ADDRESS/uplinks/hq.wan0/heal
  curl -X PUT  http://ADDRESS/uplinks/hq.wan0 -d '{"delay_ms":80,"loss":0.05}'
  curl http://ADDRESS/report

A broken uplink is a black hole with its link up, as when a provider fails.

hq is promoted to dashboard: its address and a code for the first login are
shown. The certificate is its own; compare the fingerprint.`
}

// Run implements kong's command.
func (c *labCmd) Run(ctx context.Context, env *Env, log *slog.Logger) error {
	if c.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Duration)
		defer cancel()
	}
	// A large lab has more sockets than the usual soft limit allows files.
	raiseFileLimit()
	if c.Seed == 0 {
		c.Seed = rand.Uint64()
	}
	// The table owns the screen: the appliances' log would tear it.
	quiet := slog.New(slog.DiscardHandler)
	if !env.Terminal || c.JSON {
		quiet = log
	}
	o := lab.Options{Sites: c.Sites, Uplinks: c.lines(), Seed: c.Seed, Topology: configs.TopologyMode(c.Topology), Logger: quiet}
	board, err := c.dashboard(&o, quiet)
	if err != nil {
		return err
	}
	defer board.close()
	fabric, err := lab.New(o)
	if err != nil {
		return err
	}
	traffic, err := lab.NewTraffic(fabric)
	if err != nil {
		return err
	}
	watch := lab.NewWatcher(fabric, traffic)
	control, err := listenControl(ctx, c.Listen)
	if err != nil {
		return err
	}
	run, stop := context.WithCancel(ctx)
	defer stop()
	group, run := errgroup.WithContext(run)
	group.Go(func() error { return fabric.Run(run) })
	if !c.Idle {
		group.Go(func() error { return traffic.Run(run) })
	}
	group.Go(func() error { return watch.Run(run) })
	if control != nil {
		group.Go(func() error { return serveControl(run, control, fabric, watch) })
	}
	group.Go(func() error { return board.promote(run, fabric) })
	v := &labView{cmd: c, env: env, fabric: fabric, watch: watch, stop: stop, control: control, board: board}
	group.Go(func() error { return v.run(run) })
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// raiseFileLimit takes what the hard limit gives; a lab that needs more says
// which socket it could not open.
func raiseFileLimit() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil && limit.Cur < limit.Max {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
}

// lines are the access lines, with what the flags change of them.
func (c *labCmd) lines() []lab.Line {
	lines := lab.DefaultLines()
	for i := range lines {
		l := &lines[i]
		if c.Delay > 0 {
			l.Delay = c.Delay
		}
		if c.Jitter > 0 {
			l.Jitter = c.Jitter
		}
		if c.Loss > 0 {
			l.Loss = c.Loss / 100
		}
		if c.Rate > 0 {
			l.Rate = c.Rate * 1e6
		}
		if c.MTU > 0 {
			l.MTU = c.MTU
		}
	}
	return lines
}

func listenControl(ctx context.Context, addr string) (net.Listener, error) {
	if addr == "" {
		return nil, nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("lab control: %w", err)
	}
	return l, nil
}

// serveControl answers the HTTP verbs until ctx ends.
func serveControl(ctx context.Context, l net.Listener, f *lab.Fabric, w *lab.Watcher) error {
	mux := http.NewServeMux()
	reply := func(rw http.ResponseWriter, err error) {
		switch {
		case errors.Is(err, lab.ErrNoUplink):
			http.Error(rw, err.Error()+"; there are: "+strings.Join(f.Uplinks(), " "), http.StatusNotFound)
		case err != nil:
			http.Error(rw, err.Error(), http.StatusBadRequest)
		default:
			rw.WriteHeader(http.StatusNoContent)
		}
	}
	mux.HandleFunc("POST /uplinks/{name}/break", func(rw http.ResponseWriter, r *http.Request) { reply(rw, f.Break(r.PathValue("name"))) })
	mux.HandleFunc("POST /uplinks/{name}/heal", func(rw http.ResponseWriter, r *http.Request) { reply(rw, f.Heal(r.PathValue("name"))) })
	mux.HandleFunc("PUT /uplinks/{name}", func(rw http.ResponseWriter, r *http.Request) {
		var i vnet.Impairment
		err := json.NewDecoder(io.LimitReader(r.Body, 64<<10)).Decode(&i)
		if err == nil {
			err = f.Impair(r.PathValue("name"), i)
		}
		reply(rw, err)
	})
	mux.HandleFunc("GET /report", func(rw http.ResponseWriter, r *http.Request) {
		report, err := w.Report(r.Context())
		if err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(rw).Encode(report)
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// labView shows a lab once a second.
type labView struct {
	cmd     *labCmd
	env     *Env
	fabric  *lab.Fabric
	watch   *lab.Watcher
	control net.Listener
	stop    context.CancelFunc
	board   *labBoard
}

func (v *labView) run(ctx context.Context) error {
	keys := make(chan byte)
	if v.env.Terminal && !v.cmd.JSON {
		restore, err := rawKeys(ctx, v.env.Stdin, keys)
		if err == nil {
			defer restore()
		}
		fmt.Fprint(v.env.Stdout, "\x1b[?25l")
		defer fmt.Fprint(v.env.Stdout, "\x1b[?25h\n")
	}
	if !v.env.Terminal && v.control != nil {
		fmt.Fprintf(v.env.Stderr, "lab: seed %d, control at http://%s (patronus lab --help lists the verbs)\n", v.cmd.Seed, v.control.Addr())
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	told := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case k := <-keys:
			v.key(k)
		case <-tick.C:
		}
		if text := v.board.text(); text != "" && !told && !v.env.Terminal {
			told = true
			fmt.Fprint(v.env.Stderr, text)
		}
		r, err := v.watch.Report(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
		if v.cmd.JSON {
			if err := json.NewEncoder(v.env.Stdout).Encode(r); err != nil {
				return fmt.Errorf("lab output: %w", err)
			}
			continue
		}
		v.draw(r)
	}
}

// key breaks or heals the uplink of a letter.
func (v *labView) key(k byte) {
	if k == 'q' || k == 3 {
		v.stop()
		return
	}
	names := v.fabric.Uplinks()
	i := slices.Index([]byte(labKeys), k)
	if i < 0 || i >= len(names) {
		return
	}
	if v.fabric.Relay.Uplink(names[i]).Out.Impairment().Down {
		_ = v.fabric.Heal(names[i])
	} else {
		_ = v.fabric.Break(names[i])
	}
}

// labKeys are the letters of the uplinks, in their order; q quits.
const labKeys = "abcdefghijklmnoprstuvwxyz"

// maxRows keeps each table within a screen; --json has everything.
const maxRows = 16

func (v *labView) draw(r *lab.Report) {
	var b strings.Builder
	if v.env.Terminal {
		b.WriteString("\x1b[H\x1b[2J")
	}
	fmt.Fprintf(&b, "patronus lab   %d sites   paths: %d up, %d degraded, %d down, %d unknown   %s\n", len(r.Sites),
		r.Totals["up"], r.Totals["degraded"], r.Totals["down"], r.Totals["unknown"], r.At.Format("15:04:05"))
	if v.control != nil {
		fmt.Fprintf(&b, "control http://%s   seed %d   letters break and heal, q quits\n", v.control.Addr(), v.cmd.Seed)
	}
	b.WriteString(v.board.text())
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nUPLINK\tLINE\tSTATE\tPACKETS\tTRULY LOST")
	for i, l := range r.Lines[:min(len(r.Lines), maxRows)] {
		state := "ok"
		if l.Broken {
			state = "BROKEN"
		}
		key := ' '
		if i < len(labKeys) {
			key = rune(labKeys[i])
		}
		fmt.Fprintf(t, "%c %s\t%s\t%s\t%d\t%d\n", key, l.Name, lineText(l.Line), state, l.Sent, l.Lost)
	}
	fmt.Fprintln(t, "\nPATH\tSTATE\tRTT\tPDV p95\tLOSS out/in\tSCORE\tTX\tRX\tWHY")
	rows := 0
	for i := range r.Sites {
		for j := range r.Sites[i].Paths {
			p := &r.Sites[i].Paths[j]
			if rows++; rows > maxRows {
				continue
			}
			m := &p.Metrics
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s/%s\t%s\t%s\t%s\t%s\n", p.ID, strings.ToUpper(p.State), millis(m.Latency), millis(m.PDVp95),
				percent(m.LossOut), percent(m.LossIn), score(p.Scores), mbps(m.Tx), mbps(m.Rx), p.Why)
		}
	}
	if rows > maxRows {
		fmt.Fprintf(t, "and %d more; --json has them all\n", rows-maxRows)
	}
	fmt.Fprintln(t, "\nTRAFFIC\tCALL DELAY\tCALL LOSS\tLONGEST GAP\tTRANSFER")
	for _, c := range r.Calls[:min(len(r.Calls), maxRows)] {
		fmt.Fprintf(t, "%s to %s\t%.1f ms\t%.2f%%\t%.0f ms\t%.2f Mb/s\n", c.From, c.To, c.LatencyMS, c.LossPct, c.OutageMS, c.BulkMbps)
	}
	fmt.Fprintln(t, "\nFLOW\tCLASS\tPATH\tMOVES\tBYTES\tWHY")
	for i := range r.Flows[:min(len(r.Flows), 8)] {
		f := &r.Flows[i]
		why := ""
		if f.Decision != nil {
			why = f.Decision.Why
		}
		fmt.Fprintf(t, "%s > %s %s/%d\t%s\t%s\t%d\t%s\t%s\n", f.Src, f.Dst, f.Protocol, f.Port, f.Class, dash(string(f.Path)), f.Moves, size(f.Bytes), why)
	}
	// A tabwriter over a string cannot fail.
	_ = t.Flush()
	if len(r.Events) > 0 {
		b.WriteString("\nEVENTS\n")
	}
	for i := range r.Events {
		ev := &r.Events[i]
		fmt.Fprintf(&b, "%s  %s%s  %s -> %s  %s\n", ev.At.Format("15:04:05.000"), ev.Path, ev.Uplink, ev.Old, ev.New, ev.Reason)
	}
	fmt.Fprint(v.env.Stdout, b.String())
}

func lineText(i vnet.Impairment) string {
	parts := []string{fmt.Sprintf("%.0f ms", float64(i.Delay)/1e6)}
	if i.Jitter > 0 {
		parts = append(parts, fmt.Sprintf("±%.1f ms", float64(i.Jitter)/1e6))
	}
	if i.Loss > 0 {
		parts = append(parts, fmt.Sprintf("loss %.2f%%", 100*i.Loss))
	}
	if i.Rate > 0 {
		parts = append(parts, rate(float64(i.Rate)))
	}
	return strings.Join(parts, ", ")
}

func sortedKeys(m map[string]uint64) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
