package benchstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"patronus/e2e/benchstore/load"
)

// server is a database server on loopback. What it gets are lines of the
// InfluxDB protocol by HTTP; what the client spends on that is not counted.
type server struct {
	cmd   *exec.Cmd
	base  string
	dir   string
	write string
	lines bytes.Buffer
	ticks int
}

// start starts a server and waits until it answers.
func start(dir, program, ping, write string, args []string, env ...string) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "@", addr)
	}
	for i := range env {
		env[i] = strings.ReplaceAll(env[i], "@", addr)
	}
	s := &server{cmd: exec.Command(program, args...), base: "http://" + addr, dir: dir, write: write}
	s.cmd.Env = append(os.Environ(), env...)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	var answer error
	if poll(time.Minute, func() bool {
		_, answer = s.get(ping, nil)
		return answer == nil
	}) != nil {
		return nil, errors.Join(fmt.Errorf("%s does not answer: %w", program, answer), s.close())
	}
	return s, nil
}

// poll asks until the answer is yes.
func poll(limit time.Duration, ask func() bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for !ask() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
	return nil
}

func (s *server) close() error {
	if err := s.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = s.cmd.Wait() // it was killed
	return nil
}

func (s *server) get(path string, q url.Values) ([]byte, error) {
	return s.do(http.MethodGet, path, q, nil)
}

func (s *server) do(method, path string, q url.Values, body io.Reader) ([]byte, error) {
	u := s.base + path
	if q != nil {
		u += "?" + q.Encode()
	}
	req, err := http.NewRequest(method, u, body)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s: %.200s", path, res.Status, text)
	}
	return text, err
}

// lines per request: as agents that batch well do.
const ticksPerWrite = 40

// Tick collects lines and sends some ticks at a time.
func (s *server) Tick(at int64, values []int32) error {
	b := s.lines.AvailableBuffer()
	for i := 0; i < len(values); i += load.Metrics {
		p := i / load.Metrics
		b = append(append(append(append(b, "path,path="...), load.Path(p)...), ",site="...), load.Site(p)...)
		for m := range load.Metrics {
			sep := byte(',')
			if m == 0 {
				sep = ' '
			}
			b = append(append(append(b, sep), load.Names[m]...), '=')
			b = strconv.AppendFloat(b, load.Value(m, values[i+m]), 'f', -1, 64)
		}
		b = strconv.AppendInt(append(b, ' '), at*1e6, 10)
		b = append(b, '\n')
	}
	s.lines.Write(b)
	if s.ticks++; s.ticks%ticksPerWrite == 0 {
		return s.send()
	}
	return nil
}

func (s *server) send() error {
	if s.lines.Len() == 0 {
		return nil
	}
	_, err := s.do(http.MethodPost, s.write, nil, bytes.NewReader(s.lines.Bytes()))
	s.lines.Reset()
	return err
}

// Sizes is all there is: these engines keep nothing but samples.
func (s *server) Sizes() (raw, all int64, err error) {
	all, err = load.Size(s.dir)
	return all, all, err
}

// Victoria is Debian's victoria-metrics.
type Victoria struct{ *server }

// NewVictoria starts the server.
func NewVictoria(dir string) (*Victoria, error) {
	s, err := start(dir, "victoria-metrics", "/health", "/write", []string{
		"-storageDataPath=" + dir, "-httpListenAddr=@", "-retentionPeriod=1200", "-search.latencyOffset=0s", "-loggerLevel=ERROR",
		"-search.disableCache",
	})
	return &Victoria{s}, err
}

// Flush merges all parts, which the server otherwise does in the course of time.
func (v *Victoria) Flush() error {
	if err := v.send(); err != nil {
		return err
	}
	for _, path := range []string{"/internal/force_flush", "/internal/force_merge"} {
		if _, err := v.get(path, nil); err != nil {
			return err
		}
	}
	return poll(time.Minute, func() bool {
		text, err := v.get("/metrics", nil)
		return err == nil && bytes.Contains(text, []byte("vm_active_force_merges 0\n"))
	})
}

func seconds(at int64) string { return strconv.FormatFloat(float64(at)/1000, 'f', 3, 64) }

// query sums what a PromQL query gives.
func (v *Victoria) query(path string, q url.Values) (f load.Found, err error) {
	text, err := v.get(path, q)
	if err != nil {
		return f, err
	}
	var r struct {
		Data struct {
			Result []struct {
				Value  [2]json.RawMessage
				Values [][2]json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return f, err
	}
	add := func(raw json.RawMessage) {
		var s string
		if json.Unmarshal(raw, &s) == nil {
			n, _ := strconv.ParseFloat(s, 64)
			f.N++
			f.Value += n
		}
	}
	for _, one := range r.Data.Result {
		if one.Value[1] != nil {
			add(one.Value[1])
		}
		for _, p := range one.Values {
			add(p[1])
		}
	}
	return f, nil
}

// Last implements load.Engine; a query without a time is about now, so that the
// time of the data is given.
func (v *Victoria) Last() (load.Found, error) {
	return v.query("/api/v1/query", url.Values{"query": {"last_over_time(path_latency_ms[48h])"}, "step": {"48h"}, "nocache": {"1"}})
}

// Hour implements load.Engine.
func (v *Victoria) Hour(which int, from, to int64) (f load.Found, err error) {
	text, err := v.get("/api/v1/export", url.Values{
		"match[]": {fmt.Sprintf("path_latency_ms{path=%q}", load.Path(which))}, "start": {seconds(from)}, "end": {seconds(to - 1)},
	})
	if err != nil {
		return f, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	for d.More() {
		var line struct{ Values []float64 }
		if err := d.Decode(&line); err != nil {
			return f, err
		}
		f.N += len(line.Values)
		for _, n := range line.Values {
			f.Value += n
		}
	}
	return f, nil
}

// Site implements load.Engine.
func (v *Victoria) Site(site int, from, to int64) (load.Found, error) {
	minute := int64(60_000)
	return v.query("/api/v1/query_range", url.Values{
		"query": {fmt.Sprintf("avg_over_time(path_latency_ms{site=%q}[1m])", load.Site(site*load.PathsPerSite))},
		"start": {seconds(from + minute)}, "end": {seconds(to)}, "step": {"60"}, "nocache": {"1"},
	})
}

// Fleet implements load.Engine, as its documentation advises: a histogram over
// time. The number of samples is not told.
func (v *Victoria) Fleet(from, to int64) (load.Found, error) {
	f, err := v.query("/api/v1/query", url.Values{
		"query": {fmt.Sprintf("histogram_quantile(0.95, sum(histogram_over_time(path_latency_ms[%ds])) by (vmrange))", (to-from)/1000)},
		"time":  {seconds(to - 1)}, "nocache": {"1"},
	})
	f.N = 0
	return f, err
}

// Influx is Debian's influxdb, with its newer index.
type Influx struct{ *server }

// NewInflux starts the server and makes a database.
func NewInflux(dir string) (*Influx, error) {
	s, err := start(dir, "influxd", "/ping", "/write?db=bench", []string{"-config", os.DevNull},
		"INFLUXDB_META_DIR="+dir+"/meta", "INFLUXDB_DATA_DIR="+dir+"/data", "INFLUXDB_DATA_WAL_DIR="+dir+"/wal",
		"INFLUXDB_HTTP_BIND_ADDRESS=@", "INFLUXDB_BIND_ADDRESS=127.0.0.1:0", "INFLUXDB_REPORTING_DISABLED=true",
		"INFLUXDB_DATA_INDEX_VERSION=tsi1", "INFLUXDB_HTTP_LOG_ENABLED=false", "INFLUXDB_MONITOR_STORE_ENABLED=false",
		"INFLUXDB_DATA_CACHE_SNAPSHOT_WRITE_COLD_DURATION=1s", "INFLUXDB_DATA_COMPACT_FULL_WRITE_COLD_DURATION=3s")
	if err != nil {
		return nil, err
	}
	i := &Influx{s}
	if _, err := s.do(http.MethodPost, "/query", url.Values{"q": {"CREATE DATABASE bench"}}, nil); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return i, nil
}

// Flush waits until the server has compacted what it wants to.
func (i *Influx) Flush() error {
	if err := i.send(); err != nil {
		return err
	}
	last, same := int64(-1), 0
	err := poll(20*time.Second, func() bool {
		n, err := load.Size(i.dir)
		if same++; err != nil || n != last {
			last, same = n, 0
		}
		return same > 40
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // it is still at it: the size will tell
	}
	return err
}

func (i *Influx) query(q string, args ...any) (f load.Found, err error) {
	text, err := i.get("/query", url.Values{"db": {"bench"}, "epoch": {"ms"}, "q": {fmt.Sprintf(q, args...)}})
	if err != nil {
		return f, err
	}
	var r struct {
		Results []struct {
			Error  string
			Series []struct{ Values [][]*float64 }
		}
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return f, err
	}
	for _, one := range r.Results {
		if one.Error != "" {
			return f, errors.New(one.Error)
		}
		for _, s := range one.Series {
			for _, v := range s.Values {
				if len(v) > 1 && v[1] != nil {
					f.N++
					f.Value += *v[1]
				}
			}
		}
	}
	return f, nil
}

// Last implements load.Engine.
func (i *Influx) Last() (load.Found, error) {
	return i.query("SELECT last(latency_ms) FROM path GROUP BY path")
}

// Hour implements load.Engine.
func (i *Influx) Hour(which int, from, to int64) (load.Found, error) {
	return i.query("SELECT latency_ms FROM path WHERE path='%s' AND time>=%dms AND time<%dms", load.Path(which), from, to)
}

// Site implements load.Engine.
func (i *Influx) Site(site int, from, to int64) (load.Found, error) {
	return i.query("SELECT mean(latency_ms) FROM path WHERE site='%s' AND time>=%dms AND time<%dms GROUP BY time(1m), path fill(none)",
		load.Site(site*load.PathsPerSite), from, to)
}

// Fleet implements load.Engine.
func (i *Influx) Fleet(from, to int64) (load.Found, error) {
	f, err := i.query("SELECT percentile(latency_ms, 95) FROM path WHERE time>=%dms AND time<%dms", from, to)
	f.N = 0
	return f, err
}
