package export

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"patronus/appliance"
	"patronus/appliance/lab"
	"patronus/configs"
)

// fabric runs two sites with traffic between them, hq a dashboard, and streams
// to engines. secrets are files of hq's, by name.
func fabric(t *testing.T, secrets map[string]string, engines ...configs.Engine) *lab.Fabric {
	t.Helper()
	dir := t.TempDir()
	for name, text := range secrets {
		file := filepath.Join(dir, "hq", "secrets", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := lab.New(lab.Options{Sites: 2, Seed: 1, Dir: dir, Change: func(c *configs.Config) { c.Export.Engines = engines }})
	if err != nil {
		t.Fatal(err)
	}
	traffic, err := lab.NewTraffic(f)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		if err := f.Run(ctx); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	all.Go(func() { _ = traffic.Run(ctx) }) // ends with the fabric
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
	if err := eventually(t, 30*time.Second, func(ctx context.Context) error { return f.Sites[0].Promote(ctx, true) }); err != nil {
		t.Fatal(err)
	}
	return f
}

// engine is the configuration that the operator of a test's engine writes.
func (e *engine) config(t *testing.T) (configs.Engine, map[string]string) {
	t.Helper()
	x, secrets := configs.Engine{Name: e.sink.Name, Private: true}, map[string]string{}
	secret := func(file string) string {
		if file == "" {
			return ""
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		secrets["password"] = string(text)
		return "password"
	}
	switch s := e.sink; {
	case s.RemoteWrite != nil:
		x.Kind, x.URL = configs.EnginePrometheus, s.RemoteWrite.URL
	case s.Influx != nil:
		x.Kind, x.URL, x.Database, x.User = configs.EngineInflux, s.Influx.URL, s.Influx.Database, s.Influx.User
		x.PasswordFile = secret(string(s.Influx.Password))
	case s.Postgres != nil:
		x.Kind, x.URL = configs.EnginePostgres, s.Postgres.URL
		x.PasswordFile = secret(string(s.Postgres.Password))
	}
	return x, secrets
}

// What a running fabric measures arrives in each engine.
func TestFabricArrives(t *testing.T) {
	long(t)
	for _, made := range engines {
		t.Run(made.name, func(t *testing.T) {
			e := made.make(t)
			x, secrets := e.config(t)
			f := fabric(t, secrets, x)
			if err := eventually(t, 90*time.Second, func(ctx context.Context) error {
				c, err := e.count(ctx)
				if err == nil && (c.samples < 10 || c.flows == 0 || c.events == 0) {
					err = fmt.Errorf("arrived: %+v", c)
				}
				return err
			}); err != nil {
				st, _ := f.Sites[0].NodeClient.Status(t.Context())
				t.Fatalf("%v; %+v", err, st.Exports)
			}
			st, err := f.Sites[0].NodeClient.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(st.Exports) != 1 || !st.Exports[0].Up || st.Exports[0].Delivered.Samples == 0 || st.Exports[0].From != configs.FromDashboard {
				t.Errorf("status: %+v", st.Exports)
			}
			if st.Dashboard.Stats.Unforwarded != 0 {
				t.Errorf("%d batches were not forwarded", st.Dashboard.Stats.Unforwarded)
			}
		})
	}
}

// Each appliance sends its own events to syslog, and the dashboard what it
// collects.
func TestFabricSyslog(t *testing.T) {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	url := "udp://" + c.LocalAddr().String()
	f := fabric(t, nil,
		configs.Engine{Name: "soc", Kind: configs.EngineSyslog, URL: url, From: configs.FromAppliance, Private: true},
		configs.Engine{Name: "noc", Kind: configs.EngineSyslog, URL: url, Private: true},
		configs.Engine{Name: "away", Kind: configs.EngineSyslog, URL: "tcp://127.0.0.1:1", Private: true},
	)
	if err := c.SetReadDeadline(time.Now().Add(60 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// An event of east comes from east itself and from the dashboard at hq.
	times := map[string]int{}
	buf := make([]byte, 4096)
	for done := false; !done; {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			t.Fatalf("%v; events of east: %v", err, times)
		}
		text := string(buf[:n])
		if !strings.HasPrefix(text, "<") || !strings.Contains(text, "[patronus@32473 ") {
			t.Fatalf("not a message of ours: %q", text)
		}
		if fields := strings.Fields(text); fields[2] == "east" {
			_, rest, _ := strings.Cut(text, ` id="`)
			id, _, _ := strings.Cut(rest, `"`)
			times[id]++
			done = times[id] == 2
		}
	}
	var st *appliance.NodeStatus
	if err := eventually(t, 30*time.Second, func(ctx context.Context) (err error) {
		if st, err = f.Sites[0].NodeClient.Status(ctx); err != nil {
			return err
		}
		for _, e := range st.Exports {
			if e.Name == "away" && !e.Up && e.Err != "" && e.BacklogBytes > 0 {
				return nil
			}
		}
		return errors.New("an engine that is away is not told")
	}); err != nil {
		t.Fatalf("%v: %+v", err, st.Exports)
	}
	if len(st.Exports) != 3 {
		t.Errorf("status: %+v", st.Exports)
	}
}
