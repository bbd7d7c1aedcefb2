package export

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"google.golang.org/protobuf/encoding/protowire"

	"patronus/appliance/store"
	"patronus/dashboard/export/outbound"
)

// fields takes a message apart.
func fields(t *testing.T, b []byte) map[protowire.Number][]any {
	t.Helper()
	out := map[protowire.Number][]any{}
	for len(b) > 0 {
		n, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			t.Fatal("not a message")
		}
		b = b[size:]
		var v any
		switch typ {
		case protowire.BytesType:
			v, size = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			v, size = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			v, size = protowire.ConsumeFixed64(b)
		default:
			t.Fatalf("field %d of type %d", n, typ)
		}
		if size < 0 {
			t.Fatal("not a message")
		}
		out[n], b = append(out[n], v), b[size:]
	}
	return out
}

// parsed is a request of either version as text: labels, then time=value.
func parsed(t *testing.T, body []byte, two bool) (out []string) {
	t.Helper()
	req := fields(t, body)
	series := req[1]
	var table []string
	if two {
		series = req[5]
		for _, s := range req[4] {
			table = append(table, string(s.([]byte)))
		}
		if len(table) == 0 || table[0] != "" {
			t.Fatalf("symbols begin with %q", table)
		}
	}
	for _, raw := range series {
		ts := fields(t, raw.([]byte))
		var text []string
		if two {
			refs := ts[1][0].([]byte)
			for len(refs) > 0 {
				n, size := protowire.ConsumeVarint(refs)
				text, refs = append(text, table[n]), refs[size:]
			}
			meta := fields(t, ts[5][0].([]byte))
			if meta[1][0].(uint64) != gaugeType || table[meta[3][0].(uint64)] == "" {
				t.Errorf("metadata %v", meta)
			}
		} else {
			for _, l := range ts[1] {
				f := fields(t, l.([]byte))
				text = append(text, string(f[1][0].([]byte)), string(f[2][0].([]byte)))
			}
		}
		var names []string
		for i := 0; i < len(text); i += 2 {
			names = append(names, text[i])
		}
		if !slices.IsSorted(names) {
			t.Errorf("labels are not sorted: %v", names)
		}
		line := strings.Join(text, " ")
		for _, p := range ts[2] {
			f := fields(t, p.([]byte))
			line += fmt.Sprintf(" %d=%v", f[2][0], math.Float64frombits(f[1][0].(uint64)))
		}
		out = append(out, line)
	}
	return out
}

func someBatches() []store.Batch {
	a, b, c := aSample("hq", "hq.wan0~east.lte0", 2000, 100), aSample("hq", "hq.wan0~east.lte0", 1000, 50), aSample("hq", "odd", 1000, 7)
	for m := range c.V {
		if store.Metric(m) != store.LossIn {
			c.V[m] = store.Missing
		}
	}
	// The second batch repeats a sample, and comes before the first in time.
	return []store.Batch{{Samples: []store.SeriesSample{a, c}}, {Samples: []store.SeriesSample{b, a}}}
}

func TestEncodings(t *testing.T) {
	all := gather(someBatches())
	two, one := parsed(t, encode2(all), true), parsed(t, encode1(all), false)
	if !slices.Equal(one, two) {
		t.Errorf("1.0: %q\n2.0: %q", one, two)
	}
	if len(two) != store.NumMetrics-1+1 {
		t.Errorf("%d series", len(two))
	}
	const common = "path hq.wan0~east.lte0 remote_site east remote_uplink lte0 site hq uplink wan0"
	for _, want := range []string{
		"__name__ patronus_path_latency_seconds " + common + " 1000=0.0005 2000=0.001",
		"__name__ patronus_path_loss_ratio direction out " + common + " 1000=0.00054 2000=0.00104",
		"__name__ patronus_path_throughput_bytes_per_second direction in " + common + " 1000=7250 2000=13500",
		"__name__ patronus_path_loss_ratio direction in path odd site hq 1000=0.00012",
	} {
		if !slices.Contains(two, want) {
			t.Errorf("no series %q in\n%s", want, strings.Join(two, "\n"))
		}
	}
}

// receiver is a server that answers requests in turn and keeps them.
type receiver struct {
	*httptest.Server
	answers  []func(http.ResponseWriter)
	versions []string
	auth     []string
	bodies   [][]byte
}

func newReceiver(t *testing.T, answers ...func(http.ResponseWriter)) *receiver {
	r := &receiver{answers: answers}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		r.versions = append(r.versions, req.Header.Get("X-Prometheus-Remote-Write-Version"))
		r.auth = append(r.auth, req.Header.Get("Authorization"))
		r.bodies = append(r.bodies, body)
		i := min(len(r.versions), len(r.answers)) - 1
		r.answers[i](w)
	}))
	t.Cleanup(r.Close)
	return r
}

func status(code int, header ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

func TestRemoteWriteVersions(t *testing.T) {
	points := 0
	for _, s := range gather(someBatches()) {
		points += len(s.points)
	}
	wrote := status(204, writtenHeader, fmt.Sprint(points))
	tests := []struct {
		name    string
		answers []func(http.ResponseWriter)
		first   bool // Version1
		want    []string
		refused bool
	}{
		{"2.0", []func(http.ResponseWriter){wrote}, false, []string{"2.0.0", "2.0.0"}, false},
		{"415", []func(http.ResponseWriter){status(415), status(204)}, false, []string{"2.0.0", "0.1.0", "0.1.0"}, false},
		{"1.0 that takes anything", []func(http.ResponseWriter){status(204)}, false, []string{"2.0.0", "0.1.0", "0.1.0"}, false},
		{"1.0 by configuration", []func(http.ResponseWriter){status(204)}, true, []string{"0.1.0", "0.1.0"}, false},
		{"2.0 that wrote less", []func(http.ResponseWriter){status(200, writtenHeader, "1")}, false, []string{"2.0.0", "2.0.0"}, true},
	}
	for _, tt := range tests {
		r := newReceiver(t, tt.answers...)
		w, err := newRemoteWrite(&Sink{Private: true, RemoteWrite: &RemoteWrite{URL: r.URL, Version1: tt.first}})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_, err := w.send(t.Context(), someBatches())
			var no *refusal
			if errors.As(err, &no) != tt.refused || err != nil && !tt.refused {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		if !slices.Equal(r.versions, tt.want) {
			t.Errorf("%s: sent %v, want %v", tt.name, r.versions, tt.want)
		}
		raw, err := snappy.Decode(nil, r.bodies[len(r.bodies)-1])
		if err != nil {
			t.Fatal(err)
		}
		parsed(t, raw, tt.want[len(tt.want)-1] == "2.0.0")
		if err := w.close(); err != nil {
			t.Error(err)
		}
	}
}

func TestStatuses(t *testing.T) {
	tests := []struct {
		code    int
		header  []string
		refused bool
		after   time.Duration
	}{
		{400, nil, true, 0},
		{413, nil, true, 0},
		{422, nil, true, 0},
		{401, nil, false, 0},
		{403, nil, false, 0},
		{404, nil, false, 0},
		{302, []string{"Location", "http://127.0.0.1/"}, false, 0},
		{429, []string{"Retry-After", "7"}, false, 7 * time.Second},
		{503, []string{"Retry-After", "3"}, false, 3 * time.Second},
		{503, []string{"Retry-After", "soon"}, false, 0},
		{500, nil, false, 0},
	}
	for _, tt := range tests {
		r := newReceiver(t, status(tt.code, tt.header...))
		for _, s := range []*Sink{
			{Private: true, RemoteWrite: &RemoteWrite{URL: r.URL, Version1: true}},
			{Private: true, Influx: &Influx{URL: r.URL, Database: "d"}},
		} {
			e, err := newEngine(s)
			if err != nil {
				t.Fatal(err)
			}
			_, err = e.send(t.Context(), someBatches())
			var no *refusal
			var l *later
			if err == nil || errors.As(err, &no) != tt.refused || errors.As(err, &l) != (tt.after > 0) || l != nil && l.after != tt.after {
				t.Errorf("%d %v: %v", tt.code, tt.header, err)
			}
			if err := e.close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestRetryAfterDate(t *testing.T) {
	now := time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC)
	if d := retryAfter("Wed, 25 Nov 2026 03:00:30 GMT", now); d != 30*time.Second {
		t.Errorf("got %s", d)
	}
	if d := retryAfter("Wed, 25 Nov 2026 02:00:30 GMT", now); d != 0 {
		t.Errorf("of the past: %s", d)
	}
}

// The secret is read from its file each time, and sent as the engine wants it.
func TestCredentials(t *testing.T) {
	name := filepath.Join(t.TempDir(), "secret")
	for _, secret := range []string{"first", "rotated"} {
		if err := os.WriteFile(name, []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		f := outbound.Secret(name)
		for want, s := range map[string]*Sink{
			"Bearer " + secret:   {RemoteWrite: &RemoteWrite{Token: f}},
			"Token " + secret:    {Influx: &Influx{Bucket: "b", Token: f}},
			basic("bob", secret): {Influx: &Influx{Database: "d", User: "bob", Password: f}},
			"":                   {RemoteWrite: &RemoteWrite{}},
		} {
			r := newReceiver(t, status(200, writtenHeader, "1000"))
			s.Private = true
			if s.RemoteWrite != nil {
				s.RemoteWrite.URL = r.URL
			} else {
				s.Influx.URL = r.URL
			}
			e, err := newEngine(s)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := e.send(t.Context(), someBatches()); err != nil || r.auth[0] != want {
				t.Errorf("sent %q, want %q (%v)", r.auth, want, err)
			}
			if err := e.close(); err != nil {
				t.Error(err)
			}
		}
	}
}
