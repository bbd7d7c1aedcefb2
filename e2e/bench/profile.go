package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"patronus/appliance"
)

// profileTime is how long the gateways are watched.
const profileTime = 5 * time.Second

// Load is what gateways carry while they are profiled.
type Load string

const (
	LoadTCP   Load = "tcp"   // one stream
	LoadSmall Load = "small" // UDP of 200 bytes, at a rate that is carried
	LoadPing  Load = "ping"  // a ping-pong
)

// Profile takes a CPU profile of both edges of a patronus contender under
// load, and writes NAME-a.pb.gz and NAME-a.svg, and the same for b, into dir.
func Profile(ctx context.Context, o Options, row string, load Load, dir string) error {
	tmp, err := os.MkdirTemp("", "patronus-profile-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o711); err != nil {
		return err
	}
	for _, c := range contenders(o.Binaries) {
		if c.name != row {
			continue
		}
		defer c.world.close()
		if err := c.prepare(ctx, tmp); err != nil {
			c.world.logs(o.Logs)
			return err
		}
		return c.profile(ctx, load, dir)
	}
	return fmt.Errorf("no row %q", row)
}

// Hold builds the named rows, prints the namespaces of each, and keeps them
// until ctx ends, for tools of one's own.
func Hold(ctx context.Context, o Options, out io.Writer) error {
	tmp, err := os.MkdirTemp("", "patronus-hold-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o711); err != nil {
		return err
	}
	for _, c := range contenders(o.Binaries) {
		if !slices.Contains(o.Only, c.name) {
			continue
		}
		defer c.world.close()
		if err := c.prepare(ctx, tmp); err != nil {
			c.world.logs(o.Logs)
			return err
		}
		w := &c.world
		fmt.Fprintf(out, "%s: hosts %s %s, gateways %s %s, %s:%d\n", c.name, w.a.host, w.b.host, w.a.gateway, w.b.gateway, c.address(), iperfPort)
	}
	<-ctx.Done()
	return nil
}

func (c *contender) profile(ctx context.Context, load Load, dir string) error {
	group, ctx := errgroup.WithContext(ctx)
	busy, cancel := context.WithCancel(ctx)
	defer cancel()
	group.Go(func() error { return c.carry(busy, load) })
	watch, watching := errgroup.WithContext(ctx)
	for _, site := range []string{"a", "b"} {
		watch.Go(func() error {
			socket := appliance.EdgeSocket(filepath.Join(c.world.dir, "data-"+site))
			name := filepath.Join(dir, fmt.Sprintf("%s-%s-%s", c.name, load, site))
			err := fetch(watching, socket, fmt.Sprintf("/debug/pprof/profile?seconds=%.0f", profileTime.Seconds()), name+".pb.gz")
			if err != nil {
				return err
			}
			// What was dropped meanwhile, and why.
			if err := fetch(watching, socket, "/v1/status", name+".json"); err != nil {
				return err
			}
			return drawProfile(watching, name)
		})
	}
	err := watch.Wait()
	cancel()
	if carried := group.Wait(); err == nil {
		err = carried
	}
	return err
}

// carry loads the gateways until ctx ends.
func (c *contender) carry(ctx context.Context, load Load) error {
	w := &c.world
	if load == LoadSmall {
		u, err := newUDPLoad(w)
		if err != nil {
			return err
		}
		defer u.close()
		for ctx.Err() == nil {
			if _, err := u.try(firstGuess, 200); err != nil {
				return err
			}
		}
		return nil
	}
	for ctx.Err() == nil {
		var err error
		if load == LoadPing {
			_, _, err = pingPong(w, time.Second)
		} else {
			_, err = tcp(ctx, w, c.address(), 1)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// fetch writes what an edge answers into a file.
func fetch(ctx context.Context, socket, path, file string) error {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://edge"+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("edge %s: %s", path, resp.Status)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// drawProfile makes name.svg of name.pb.gz.
func drawProfile(ctx context.Context, name string) error {
	traces, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-traces", name+".pb.gz").Output()
	if err != nil {
		return fmt.Errorf("go tool pprof -traces: %w", err)
	}
	var svg bytes.Buffer
	if err := Flame(bytes.NewReader(traces), filepath.Base(name), &svg); err != nil {
		return err
	}
	return os.WriteFile(name+".svg", svg.Bytes(), 0o644)
}
