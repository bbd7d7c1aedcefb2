package cli

import (
	"bytes"
	"flag"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"patronus/netstack"
	"patronus/netstack/flow"
	"patronus/netstack/path"
)

var update = flag.Bool("update", false, "write the golden files")

// command runs one command line with buffers.
func command(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Main(t.Context(), Env{Args: args, Stdin: strings.NewReader(""), Stdout: &o, Stderr: &e})
	return code, o.String(), e.String()
}

func TestHelp(t *testing.T) {
	for _, c := range [][]string{
		{},
		{"run"},
		{"lab"},
		{"status"},
		{"paths"},
		{"flows"},
		{"explain"},
		{"config"},
		{"config", "check"},
		{"config", "reference"},
		{"policy"},
		{"reload"},
		{"keygen"},
		{"version"},
		{"promote"},
		{"enroll"},
		{"login"},
		{"get"},
		{"apply"},
		{"delete"},
		{"whoami"},
		{"completion"},
	} {
		code, out, errs := command(t, append(c, "--help")...)
		if code != 0 || !strings.Contains(out, "Usage: patronus") || errs != "" {
			t.Errorf("%v: exit %d, %q, %q", c, code, out, errs)
		}
	}
	if code, out, _ := command(t); code != 0 || !strings.Contains(out, "lab") {
		t.Errorf("no command: exit %d, %q", code, out)
	}
}

func TestExitStatus(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("fabric: x\ncolour: red\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const good = "../../configs/examples/hub-and-spoke.yaml"
	for _, c := range []struct {
		args      []string
		code      int
		out, errs string
	}{
		{[]string{"fly"}, 2, "", "usage"},
		{[]string{"status", "--colour=red"}, 2, "", "usage"},
		{[]string{"version"}, 0, "patronus", ""},
		{[]string{"config", "check", good}, 0, "ok", ""},
		{[]string{"config", "check", bad}, 1, "", "bad.yaml:2"},
		{[]string{"config", "check", good, bad}, 1, "ok", "colour"},
		{[]string{"config", "check", filepath.Join(dir, "none.yaml")}, 1, "", "no such file"},
		{[]string{"config", "reference"}, 0, "fabric:", ""},
		{[]string{"status", "-data-dir", dir}, 1, "", "is an appliance running"},
		{[]string{"paths", "--data-dir=" + dir}, 1, "", "is an appliance running"},
		{[]string{"flows", "--data-dir=" + dir}, 1, "", "is an appliance running"},
		{[]string{"explain", "--data-dir=" + dir, "10.1.0.1", "10.2.0.1:443/tcp"}, 1, "", "is an appliance running"},
		{[]string{"explain", "10.1.0.1", "somewhere"}, 2, "", "destination"},
		{[]string{"lab", "--sites=1", "--listen="}, 1, "", "2 to"},
		{[]string{"lab", "--promote=hq", "--listen="}, 2, "", "127.0.0.1:8443"},
		{[]string{"get", "clouds", "--url=https://localhost:1"}, 2, "", "alert-rules"},
		{[]string{"get", "sites", "--url=http://localhost"}, 2, "", "https://HOST:PORT"},
		{[]string{"get", "sites", "-f", "red"}, 2, "", "FIELD=VALUE"},
		{[]string{"completion", "tcsh"}, 2, "", "bash"},
	} {
		code, out, errs := command(t, c.args...)
		if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errs, c.errs) {
			t.Errorf("%v: exit %d, %q, %q", c.args, code, out, errs)
		}
	}
}

func TestTwoDashes(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"run -config x", "run --config x"},
		{"run -config=x", "run --config=x"},
		{"run --config x", "run --config x"},
		{"run -h", "run -h"},
		{"run -5", "run -5"},
		{"run - x", "run - x"},
		{"run -- -config", "run -- -config"},
		{"-log-level debug run", "--log-level debug run"},
	} {
		if got := twoDashes(strings.Fields(c.in)); !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%q: %q", c.in, got)
		}
	}
}

func TestParseQuestion(t *testing.T) {
	for _, c := range []struct {
		from, to string
		proto    string
		port     uint16
		bad      bool
	}{
		{"10.1.0.1", "10.2.0.1:443/tcp", "TCP", 443, false},
		{"10.1.0.1", "10.2.0.1:53/Udp", "UDP", 53, false},
		{"fd00::1", "[fd00::2]:53/udp", "UDP", 53, false},
		{"10.1.0.1", "10.2.0.1", "ICMP", 0, false},
		{"fd00::1", "fd00::2", "ICMPv6", 0, false},
		{"10.1.0.1", "10.2.0.1/icmp", "ICMP", 0, false},
		{"10.1.0.1", "10.2.0.1:443", "", 443, false},
		{"here", "10.2.0.1:443/tcp", "", 0, true},
		{"10.1.0.1", "there:443/tcp", "", 0, true},
		{"10.1.0.1", "10.2.0.1:99999/tcp", "", 0, true},
		{"10.1.0.1", "", "", 0, true},
	} {
		q, err := parseQuestion(c.from, c.to)
		if c.bad {
			if err == nil {
				t.Errorf("%s %s: accepted", c.from, c.to)
			}
			continue
		}
		if err != nil || q.Protocol != c.proto || q.Port != c.port {
			t.Errorf("%s %s: %+v, %v", c.from, c.to, q, err)
		}
	}
}

// golden compares a table with the file of its name.
func golden(t *testing.T, name string, write func(*tabwriter.Writer)) {
	t.Helper()
	var b bytes.Buffer
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	write(table)
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("%s: got\n%swant\n%s(go test -update writes it)", name, b.String(), want)
	}
}

// none is a value that was not measured.
var none = path.Value(math.NaN())

func TestTables(t *testing.T) {
	paths := []netstack.PathStatus{
		{
			ID: "hq.wan0~east.wan0", State: "up", Endpoint: "198.51.100.2:51820", MTU: 1400, Scores: map[string]path.Score{"default": 97},
			Metrics: path.Metrics{Latency: 12.34, PDVp95: 0.5, LossOut: 0, LossIn: 0.25, Tx: 12.5, Rx: 0.064},
		},
		{
			ID: "hq.lte0~east.wan0", State: "down", Why: "missing probes", MTU: 1400, Scores: map[string]path.Score{"default": path.NoScore},
			Metrics: path.Metrics{Latency: none, PDVp95: none, LossOut: 100, LossIn: none},
		},
	}
	golden(t, "paths", func(w *tabwriter.Writer) { writePaths(w, paths) })
	golden(t, "status", func(w *tabwriter.Writer) {
		writeStatus(w, &netstack.Status{
			Fabric: "acme", Site: "hq", Revision: 7, Uptime: 3725, Overlay: netip.MustParseAddr("fd50:6174:726f::1"), Paths: paths,
			Uplinks:  []netstack.UplinkStatus{{Name: "wan0", PublicKey: "KEY=", Carrier: true}, {Name: "lte0", PublicKey: "KEY2="}},
			Ports:    []netstack.PortStatus{{Name: "lan0", Kind: "tun", RxBytes: 5 << 20, TxBytes: 3 << 30, Dropped: map[string]uint64{"oversize": 2}}},
			Devices:  []netstack.DeviceStatus{{Name: "laptop", Uplink: "wan0", RxBytes: 10}},
			Flows:    netstack.FlowsStatus{Live: 2, Created: 9, Evicted: 1},
			Policies: []netstack.PolicyHits{{Policy: "NetworkPolicy/lan/guard", Mode: "enforced", Allowed: 3, Denied: 1}},
			Counters: netstack.Counters{ToWAN: netstack.DirectionCounters{Forwarded: 10, Bytes: 1500, Dropped: map[string]uint64{"denied": 4, "no-route": 1}}},
		})
	})
	golden(t, "flows", func(w *tabwriter.Writer) {
		writeFlows(w, []netstack.FlowStatus{{
			Src: netip.MustParseAddr("10.1.0.10"), Dst: netip.MustParseAddr("10.2.0.10"), Protocol: "TCP", Port: 443, Status: "active",
			Class: "default", Path: "hq.wan0~east.wan0", Bytes: 2048, Reverse: flow.Counts{Bytes: 1 << 21}, Created: time.Now(),
		}, {
			Src: netip.MustParseAddr("fd00::1"), Dst: netip.MustParseAddr("fd00::2"), Protocol: "UDP", Port: 53, Status: "blocked",
			Class: "voice", Policy: "NetworkPolicy/lan/guard", Created: time.Now(),
		}})
	})
}
