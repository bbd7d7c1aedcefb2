package export

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"patronus/dashboard/export"
	"patronus/dashboard/export/outbound"
)

// write makes a file in an engine's directory, readable by the engine.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func up(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := get(ctx, url)
		return err
	}
}

// vector is an answer to a Prometheus query.
type vector struct {
	Data struct {
		Result []struct {
			Metric map[string]string `json:"metric"`
			Value  [2]any            `json:"value"`
		} `json:"result"`
	} `json:"data"`
}

// ask asks a server of the Prometheus API.
func ask(ctx context.Context, api, query string) (v vector, err error) {
	text, err := get(ctx, api+"/api/v1/query?"+url.Values{"query": {query}}.Encode())
	if err != nil {
		return v, err
	}
	return v, json.Unmarshal([]byte(text), &v)
}

// scalar is the first value of an answer, 0 if there is none.
func (v *vector) scalar() (int, error) {
	if len(v.Data.Result) == 0 {
		return 0, nil
	}
	f, err := strconv.ParseFloat(fmt.Sprint(v.Data.Result[0].Value[1]), 64)
	return int(f), err
}

// promCount counts the samples of one metric of every path.
func promCount(api string) func(context.Context) (counts, error) {
	return func(ctx context.Context) (counts, error) {
		v, err := ask(ctx, api, `sum(count_over_time(patronus_path_latency_seconds{site="hq",uplink="wan0"}[2h]))`)
		if err != nil {
			return counts{}, err
		}
		n, err := v.scalar()
		return counts{n, -1, -1}, err
	}
}

func prometheus(t *testing.T) *engine {
	bin, dir, p := program(t, "prometheus"), home(t), port(t)
	api := fmt.Sprintf("http://127.0.0.1:%d", p)
	config := write(t, dir, "prometheus.yml", "storage:\n  tsdb:\n    out_of_order_time_window: 1h\n")
	s := &server{
		dir: dir, ready: up(api + "/-/ready"),
		args: []string{
			bin, "--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(dir, "data"),
			fmt.Sprintf("--web.listen-address=127.0.0.1:%d", p), "--web.enable-remote-write-receiver",
		},
	}
	s.start(t)
	return &engine{
		server: s, kill: syscall.SIGKILL, count: promCount(api),
		sink: export.Sink{Name: "prometheus", RemoteWrite: &export.RemoteWrite{URL: api + "/api/v1/write"}},
	}
}

// victoriaMetrics acknowledges before it writes: it is ended, not killed. It
// keeps a sample that comes twice twice, unless it is told to deduplicate.
func victoriaMetrics(t *testing.T) *engine {
	bin, dir, p := program(t, "victoria-metrics"), home(t), port(t)
	api := fmt.Sprintf("http://127.0.0.1:%d", p)
	s := &server{
		dir: dir, ready: up(api + "/health"),
		args: []string{bin, "-storageDataPath=" + filepath.Join(dir, "data"), fmt.Sprintf("-httpListenAddr=127.0.0.1:%d", p), "-search.latencyOffset=0s", "-search.disableCache", "-dedup.minScrapeInterval=1ms"},
	}
	s.start(t)
	count := promCount(api)
	return &engine{
		server: s, kill: syscall.SIGTERM,
		sink: export.Sink{Name: "victoria-metrics", RemoteWrite: &export.RemoteWrite{URL: api + "/api/v1/write"}},
		count: func(ctx context.Context) (counts, error) {
			// What was written is not searched before it is flushed.
			if _, err := get(ctx, api+"/internal/force_flush"); err != nil {
				return counts{}, err
			}
			return count(ctx)
		},
	}
}

func influxdb(t *testing.T) *engine {
	bin, dir, p := program(t, "influxd"), home(t), port(t)
	api := fmt.Sprintf("http://127.0.0.1:%d", p)
	config := write(t, dir, "influxdb.conf", fmt.Sprintf(`
reporting-disabled = true
bind-address = "127.0.0.1:%d"
[meta]
  dir = "%[2]s/meta"
[data]
  dir = "%[2]s/data"
  wal-dir = "%[2]s/wal"
  query-log-enabled = false
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:%[3]d"
  auth-enabled = true
`, port(t), dir, p))
	s := &server{dir: dir, ready: up(api + "/ping"), args: []string{bin, "-config", config}}
	s.start(t)
	query := func(ctx context.Context, q string) (string, error) {
		return get(ctx, api+"/query?"+url.Values{"q": {q}, "db": {"patronus"}, "u": {"admin"}, "p": {"secret word"}}.Encode())
	}
	// It answers before it takes statements, and says so in a body of status 200.
	for _, q := range []string{`CREATE USER admin WITH PASSWORD 'secret word' WITH ALL PRIVILEGES`, `CREATE DATABASE patronus`} {
		if err := eventually(t, 20*time.Second, func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, api+"/query?"+url.Values{"q": {q}, "u": {"admin"}, "p": {"secret word"}}.Encode(), nil)
			if err != nil {
				return err
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != http.StatusOK || strings.Contains(string(text), `"error"`) {
				return fmt.Errorf("%s: %s %s %v", q, resp.Status, text, err)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return &engine{
		server: s, kill: syscall.SIGKILL,
		sink: export.Sink{Name: "influx", Influx: &export.Influx{
			URL: api, Database: "patronus", User: "admin", Password: outbound.Secret(write(t, dir, "password", "secret word\n")),
		}},
		count: func(ctx context.Context) (c counts, err error) {
			for _, q := range []struct {
				n                  *int
				measurement, field string
			}{{&c.samples, "patronus_path", "latency_ms"}, {&c.flows, "patronus_flow", "flow_key"}, {&c.events, "patronus_event", "id"}} {
				text, err := query(ctx, fmt.Sprintf("SELECT count(%s) FROM %s", q.field, q.measurement))
				if err != nil {
					return c, err
				}
				if *q.n, err = influxCount(text); err != nil {
					return c, err
				}
			}
			return c, nil
		},
	}
}

// influxCount reads {"results":[{"series":[{"values":[["1970...",60]]}]}]}.
func influxCount(text string) (int, error) {
	var v struct {
		Results []struct {
			Series []struct {
				Values [][2]any `json:"values"`
			} `json:"series"`
			Error string `json:"error"`
		} `json:"results"`
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return 0, err
	}
	if len(v.Results) == 0 || v.Results[0].Error != "" {
		return 0, fmt.Errorf("%s", text)
	}
	if len(v.Results[0].Series) == 0 {
		return 0, nil
	}
	n, ok := v.Results[0].Series[0].Values[0][1].(float64)
	if !ok {
		return 0, fmt.Errorf("%s", text)
	}
	return int(n), nil
}

func postgresql(t *testing.T) *engine {
	initdb := program(t, "initdb", "/usr/lib/postgresql/*/bin/initdb")
	dir, p := home(t), port(t)
	password := write(t, dir, "password", "secret word\n")
	cluster := filepath.Join(dir, "cluster")
	cmd := exec.Command(initdb, "-D", cluster, "-U", "patronus", "-A", "scram-sha-256", "--pwfile="+password, "-E", "UTF8", "--locale=C")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: nobody(t)}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	to := fmt.Sprintf("postgres://patronus@127.0.0.1:%d/postgres?sslmode=disable", p)
	connect := func(ctx context.Context) (*pgx.Conn, error) {
		c, err := pgx.ParseConfig(to)
		if err != nil {
			return nil, err
		}
		c.Password = "secret word"
		return pgx.ConnectConfig(ctx, c)
	}
	s := &server{
		dir:  dir,
		args: []string{filepath.Join(filepath.Dir(initdb), "postgres"), "-D", cluster, "-p", strconv.Itoa(p), "-k", dir, "-c", "listen_addresses=127.0.0.1"},
		ready: func(ctx context.Context) error {
			c, err := connect(ctx)
			if err != nil {
				return err
			}
			return c.Close(ctx)
		},
	}
	s.start(t)
	return &engine{
		// An immediate shutdown: nothing is flushed, the next start recovers from
		// the log. SIGKILL would leave processes of its own that are not ours.
		server: s, kill: syscall.SIGQUIT,
		sink: export.Sink{Name: "postgres", Postgres: &export.Postgres{URL: to, Password: outbound.Secret(password)}},
		count: func(ctx context.Context) (c counts, err error) {
			conn, err := connect(ctx)
			if err != nil {
				return c, err
			}
			defer conn.Close(context.WithoutCancel(ctx))
			err = conn.QueryRow(ctx, `SELECT (SELECT count(latency_ms) FROM patronus.samples), (SELECT count(*) FROM patronus.flows), (SELECT count(*) FROM patronus.events)`).
				Scan(&c.samples, &c.flows, &c.events)
			return c, err
		},
	}
}

var engines = []struct {
	name string
	make func(*testing.T) *engine
}{{"prometheus", prometheus}, {"influxdb", influxdb}, {"postgresql", postgresql}, {"victoria-metrics", victoriaMetrics}}

// An engine that is killed, and an exporter that is, lose nothing that the
// queue holds, and what comes twice is there once.
func TestKilled(t *testing.T) {
	long(t)
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) { e.make(t).survives(t) })
	}
}

// Beyond the bound it says exactly what it dropped.
func TestOverflow(t *testing.T) {
	long(t)
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) { e.make(t).overflows(t) })
	}
}

// The tables are made once, partitioned by day, and hold what was measured.
func TestPostgresSchema(t *testing.T) {
	long(t)
	e := postgresql(t)
	x := run(t, export.Options{Dir: filepath.Join(t.TempDir(), "queue"), Sinks: []export.Sink{e.sink}})
	start := base()
	odd := batch(start, 1)
	odd.Events[0].At = start.AddDate(80, 0, 0).UnixMilli() // a clock that is wrong
	odd.Events[0].Data = json.RawMessage("{\"nul\":\"a\\u0000b\"}")
	odd.Flows[0].Policy = "not \xff UTF-8 \x00"
	for _, b := range []int{0, 2} {
		if err := x.Put(t.Context(), batch(start, b)); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Put(t.Context(), odd); err != nil {
		t.Fatal(err)
	}
	if err := eventually(t, 30*time.Second, e.has(3)); err != nil {
		t.Fatal(err)
	}
	c, err := pgx.ParseConfig(e.sink.Postgres.URL)
	if err != nil {
		t.Fatal(err)
	}
	c.Password = "secret word"
	conn, err := pgx.ConnectConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	for query, want := range map[string]string{
		`SELECT latency_ms::text FROM patronus.samples WHERE path = 'hq.wan0~branch-3.lte0' ORDER BY at LIMIT 1`:          "0.03",
		`SELECT data->>'nul' FROM patronus.events ORDER BY at DESC LIMIT 1`:                                               "ab",
		`SELECT relname::text FROM patronus.events e JOIN pg_class c ON c.oid = e.tableoid ORDER BY at DESC LIMIT 1`:      "events_other",
		`SELECT relname::text FROM patronus.samples s JOIN pg_class c ON c.oid = s.tableoid ORDER BY at LIMIT 1`:          "samples_" + start.UTC().Format("20060102"),
		`SELECT policy FROM patronus.flows WHERE policy LIKE 'not%'`:                                                      "not \ufffd UTF-8 ",
		`SELECT host(src) || ' ' || (decision->>'policy') || ' ' || reason FROM patronus.flows ORDER BY at, rule LIMIT 1`: "10.0.0.1 p zürich\n",
		`SELECT count(*)::text FROM patronus.schema_version`:                                                              "1",
	} {
		var got string
		if err := conn.QueryRow(t.Context(), query).Scan(&got); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", query, got, err, want)
		}
	}
	// A newer program's tables are left alone.
	if _, err := conn.Exec(t.Context(), "INSERT INTO patronus.schema_version (version, hypertables) VALUES (99, false)"); err != nil {
		t.Fatal(err)
	}
	x.stop()
	x = run(t, export.Options{Dir: filepath.Join(t.TempDir(), "queue"), Sinks: []export.Sink{e.sink}})
	if err := x.Put(t.Context(), batch(start, 3)); err != nil {
		t.Fatal(err)
	}
	if err := eventually(t, 10*time.Second, func(context.Context) error { return x.metric(`patronus_export_failures_total{sink="postgres"}`, 1) }); err != nil {
		t.Fatal(err)
	}
	if err := e.has(3)(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSecretsAreNotTold(t *testing.T) {
	o := export.Options{Dir: "x", Sinks: []export.Sink{{Name: "a", Postgres: &export.Postgres{URL: "postgres://u:hunter2@h/d"}}, {Name: "b", Influx: &export.Influx{URL: "http://u:hunter2@h:bad", Database: "d"}}}}
	err := o.Validate()
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Validate: %v", err)
	}
}
