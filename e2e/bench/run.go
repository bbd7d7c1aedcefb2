package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	startWithin = 20 * time.Second
	pingTime    = 800 * time.Millisecond
	searchTime  = 8 * time.Second
	// firstGuess begins the first search, packets/s.
	firstGuess = 30_000
)

// Options of a run.
type Options struct {
	Binaries
	Rounds int
	Only   []string // names of contenders; empty: all
	Log    *slog.Logger
	Logs   io.Writer // logs of gateways that did not start
}

// bounded is the context of waits that have their own limit.
func bounded() context.Context { return context.Background() }

// Run measures all contenders. One that does not pass traffic is left out, and
// the result says so.
func Run(ctx context.Context, o Options) (*Result, error) {
	dir, err := os.MkdirTemp("", "patronus-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	// The gateways' node process has a user of its own, and passes through.
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, err
	}
	all := contenders(o.Binaries)
	if len(o.Only) > 0 {
		all = slices.DeleteFunc(all, func(c *contender) bool { return !slices.Contains(o.Only, c.name) })
	}
	r := newResult(o.Rounds)
	defer func() {
		for _, c := range all {
			c.world.close()
		}
	}()
	var ready []*contender
	for _, c := range all {
		if err := c.prepare(ctx, dir); err != nil {
			o.Log.Warn("left out", "site", c.name, "err", err)
			c.world.logs(o.Logs)
			c.world.close()
			r.LeftOut = append(r.LeftOut, fmt.Sprintf("%s: %v", c.name, err))
			continue
		}
		ready = append(ready, c)
		r.row(c)
	}
	if err := r.idle(ctx, ready); err != nil {
		return nil, err
	}
	for round := range o.Rounds {
		for i := range ready {
			c := ready[(i+round)%len(ready)]
			start := time.Now()
			if err := c.measure(ctx, r.row(c)); err != nil {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				r.Failures = append(r.Failures, fmt.Sprintf("round %d, %s: %v", round+1, c.name, err))
				o.Log.Warn("measurement failed", "site", c.name, "err", err)
			}
			o.Log.Info("measured", "site", c.name, "dur", time.Since(start).Round(time.Millisecond))
		}
	}
	r.finish()
	return r, nil
}

// prepare builds the world of a contender and waits until it carries traffic.
func (c *contender) prepare(ctx context.Context, dir string) error {
	w := &c.world
	w.dir = filepath.Join(dir, w.name)
	if err := os.Mkdir(w.dir, 0o711); err != nil {
		return err
	}
	if err := w.build(); err != nil {
		return err
	}
	if err := w.start(w.b.host, "iperf3", "-s", "-p", fmt.Sprint(iperfPort)); err != nil {
		return err
	}
	if err := c.start(w); err != nil {
		return err
	}
	return await(ctx, startWithin, "no traffic passes", func() error {
		if c.tcpOnly {
			return sh("ip", "netns", "exec", string(w.a.host), "timeout", "3", "iperf3", "-c", c.address(), "-p", fmt.Sprint(iperfPort), "-n", "1K")
		}
		return sh("ip", "netns", "exec", string(w.a.host), "ping", "-q", "-c", "1", "-W", "1", hostB)
	})
}

// address is where host A's TCP goes.
func (c *contender) address() string {
	if c.target != "" {
		return c.target
	}
	return hostB
}

// idle measures what the gateways use while nothing passes, so that the reader
// knows what they take from each other.
func (r *Result) idle(ctx context.Context, all []*contender) error {
	const d = 2 * time.Second
	var before []usage
	for _, c := range all {
		before = append(before, c.world.usage())
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return ctx.Err()
	}
	for i, c := range all {
		r.row(c).add("idle", 100*(c.world.usage().cpu-before[i].cpu)/d.Seconds())
	}
	return nil
}

// measure is one round of one contender.
func (c *contender) measure(ctx context.Context, row *Row) error {
	w := &c.world
	var failed []error
	for _, streams := range []int{1, 4} {
		before := w.usage()
		t, err := tcp(ctx, w, c.address(), streams)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		after := w.usage()
		gb := t.bytes / 1e9
		row.add(fmt.Sprintf("tcp%d", streams), t.bits/1e9)
		row.add(fmt.Sprintf("machine%d", streams), (after.all-before.all)/gb)
		if after.pss > 0 {
			row.add(fmt.Sprintf("cpu%d", streams), (after.cpu-before.cpu)/gb)
			row.add("pss", after.pss/2/(1<<20))
		}
	}
	if c.tcpOnly || ctx.Err() != nil {
		return errors.Join(append(failed, ctx.Err())...)
	}
	p50, p99, err := pingPong(w, pingTime)
	if err != nil {
		failed = append(failed, err)
	} else {
		row.add("rtt50", float64(p50.Nanoseconds())/1e3)
		row.add("rtt99", float64(p99.Nanoseconds())/1e3)
	}
	failed = append(failed, c.measureUDP(ctx, row))
	return errors.Join(failed...)
}

func (c *contender) measureUDP(ctx context.Context, row *Row) error {
	u, err := newUDPLoad(&c.world)
	if err != nil {
		return err
	}
	defer u.close()
	for _, size := range []int{1372, 200} {
		metric := fmt.Sprintf("udp%d", size)
		guess := firstGuess * 1.0
		if have := row.Values[metric]; len(have) > 0 {
			guess = have[len(have)-1] * 1000
		}
		within, cancel := context.WithTimeout(ctx, searchTime)
		rate, err := u.highest(within, guess, size)
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", metric, err)
		}
		row.add(metric, rate/1000)
	}
	return nil
}
