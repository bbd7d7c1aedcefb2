package fabric

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"
	"go.uber.org/goleak"

	"patronus/appliance"
	"patronus/appliance/cli"
	"patronus/appliance/lab"
	"patronus/e2e/vnet"
	"patronus/netstack"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Both sleep for seconds before they look whether their server has ended.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

// start runs a fabric until the test ends.
func start(t *testing.T, sites int) *lab.Fabric {
	t.Helper()
	f, err := lab.New(lab.Options{Sites: sites, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	return f
}

// until polls cond, and fails the test when patience is over.
func until(t *testing.T, what string, patience time.Duration, cond func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	over := time.NewTimer(patience)
	defer over.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for !cond() {
		select {
		case <-over.C:
			t.Fatalf("not within %v: %s", patience, what)
		case <-look.C:
		}
	}
	return time.Since(began)
}

func allUp(t *testing.T, f *lab.Fabric) bool {
	for _, s := range f.Sites {
		st, err := s.Client.Status(t.Context())
		if err != nil {
			return false // not listening yet
		}
		for i := range st.Paths {
			if st.Paths[i].State != "up" {
				return false
			}
		}
	}
	return true
}

// Three sites come up, carry TCP and UDP of both families, and survive the
// loss of the uplink in use.
func TestThreeSites(t *testing.T) {
	f := start(t, 3)
	t.Logf("all paths up after %v", until(t, "all paths up", 30*time.Second, func() bool { return allUp(t, f) }))
	hq, east := f.Sites[0], f.Sites[1]
	for _, to := range []netip.Addr{east.Addr4, east.Addr6} {
		exchange(t, hq.Host, east.Host, netip.AddrPortFrom(to, 7))
		if rtt, err := hq.Host.Ping(t.Context(), to, 56); err != nil || rtt > time.Second {
			t.Errorf("ping %s: %v, %v", to, rtt, err)
		}
	}
	at := netip.AddrPortFrom(east.Addr4, 5060)
	sink, err := east.Host.SinkUDP(at)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	calls.Go(func() { _ = sink.Run(ctx) })
	calls.Go(func() { _, _ = hq.Host.SendUDP(ctx, at, vnet.UDPLoad{Rate: 64_000, Size: 160}) })
	defer calls.Wait()
	defer stop()
	until(t, "the call", 5*time.Second, func() bool { return sink.Report().Received > 20 })
	used := ""
	until(t, "the call's path", 5*time.Second, func() bool {
		flows, err := hq.Client.Flows(t.Context(), 50)
		if err != nil {
			t.Fatal(err)
		}
		for _, fl := range flows {
			if fl.Port == 5060 && fl.Path != "" {
				used = string(fl.Path[:len("hq.wan0")])
			}
		}
		return used != ""
	})
	before := sink.Report()
	if err := f.Break(used); err != nil {
		t.Fatal(err)
	}
	until(t, "the call goes on", 5*time.Second, func() bool { return sink.Report().Received > before.Received+40 })
	outage := sink.Report().LongestGap
	t.Logf("%s broken: the call's longest gap was %v", used, outage)
	if outage > 3*time.Second { // a stall of a shared machine is no defect
		t.Errorf("an outage of %v", outage)
	}
	if err := f.Heal(used); err != nil {
		t.Fatal(err)
	}
	until(t, "healed", 20*time.Second, func() bool { return allUp(t, f) })
}

// exchange sends a line there and back by TCP.
func exchange(t *testing.T, from, to *vnet.Host, at netip.AddrPort) {
	t.Helper()
	l, err := to.ListenTCP(at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var echo sync.WaitGroup
	defer echo.Wait()
	echo.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := from.DialTCP(ctx, at)
	if err != nil {
		t.Error(err)
		l.Close()
		return
	}
	defer c.Close()
	sent := bytes.Repeat([]byte("patronus"), 20_000)
	echo.Go(func() { _, _ = c.Write(sent) })
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%s: %v", at, err)
	}
}

// Every verb of the edge's interface, on a live fabric.
// captured takes some packets of a call.
func captured(ctx context.Context, t *testing.T, from *lab.Site, to netip.AddrPort) {
	t.Helper()
	c := from.Client
	call, hangUp := context.WithCancel(ctx)
	var calling sync.WaitGroup
	calling.Go(func() { _, _ = from.Host.SendUDP(call, to, vnet.UDPLoad{Rate: 64_000, Size: 160}) })
	var file bytes.Buffer
	res, err := c.Capture(ctx, netstack.CaptureOptions{Point: "lan", Filter: "ip and dst port 5060", Packets: 20}, &file)
	hangUp()
	calling.Wait()
	if err != nil || res.Packets != 20 {
		t.Fatalf("capture: %+v, %v", res, err)
	}
	r, err := pcapgo.NewNgReader(&file, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	for range res.Packets {
		data, ci, err := r.ReadPacketData()
		if err != nil {
			t.Fatal(err)
		}
		iface, err := r.Interface(ci.InterfaceIndex)
		if err != nil || data[0]>>4 != 4 || !strings.HasPrefix(iface.Name, "to_wan ") {
			t.Errorf("% x on %q, %v", data[:1], iface.Name, err)
		}
	}
	if _, err := c.Capture(ctx, netstack.CaptureOptions{Filter: "host me"}, &file); !errors.Is(err, appliance.ErrEdge) {
		t.Errorf("a bad filter: %v", err)
	}
}

func TestEdgeInterface(t *testing.T) {
	f := start(t, 2)
	hq, east := f.Sites[0], f.Sites[1]
	until(t, "all paths up", 30*time.Second, func() bool { return allUp(t, f) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	st, err := east.Client.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// A connection from one node to the other, through both edges.
	var accepted sync.WaitGroup
	accepted.Go(func() {
		c, err := east.Client.Accept(ctx, 7000)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	var line string
	until(t, "a connection", 10*time.Second, func() bool {
		c, err := hq.Client.Dial(ctx, "tcp", netip.AddrPortFrom(st.Overlay, 7000).String())
		if err != nil {
			return false // nobody listens yet
		}
		defer c.Close()
		fmt.Fprintln(c, "hello")
		line, _ = bufio.NewReader(c).ReadString('\n')
		return line != ""
	})
	accepted.Wait()
	if line != "hello\n" {
		t.Errorf("%q came back", line)
	}
	if r, err := hq.Client.TestPath(ctx, "hq.wan0~east.wan0"); err != nil || r.Received == 0 {
		t.Errorf("test: %+v, %v", r, err)
	}
	x, err := hq.Client.Explain(ctx, netstack.Question{From: hq.Addr4, To: east.Addr4, Port: 443})
	if err != nil || x.Verdict != "forward" || x.Site != "east" || x.Winner == "" {
		t.Errorf("explain: %+v, %v", x, err)
	}
	captured(ctx, t, hq, netip.AddrPortFrom(east.Addr4, 5060))
	heard := make(chan struct{})
	var once sync.Once
	follow, stop := context.WithCancel(ctx)
	var following sync.WaitGroup
	following.Go(func() {
		_ = hq.Client.Telemetry(follow, func(ev netstack.Event) {
			if ev.Kind == netstack.PathMetric {
				once.Do(func() { close(heard) })
			}
		})
	})
	select {
	case <-heard:
	case <-ctx.Done():
		t.Error("no telemetry")
	}
	stop()
	following.Wait()
	for name, err := range map[string]error{
		"garbage applied":  hq.Client.Apply(ctx, []byte("garbage")),
		"flow key":         hq.Client.Reevaluate(ctx, "nonsense"),
		"flow unknown":     hq.Client.Reevaluate(ctx, "tcp-10.1.0.1-1-10.2.0.1-2"),
		"flows limit":      second(hq.Client.Flows(ctx, 0)),
		"path unknown":     second(hq.Client.TestPath(ctx, "hq.wan0~mars.wan0")),
		"question":         second(hq.Client.Explain(ctx, netstack.Question{From: hq.Addr4, To: east.Addr6})),
		"protocol":         second(hq.Client.Explain(ctx, netstack.Question{From: hq.Addr4, To: east.Addr4, Protocol: "smoke"})),
		"dial address":     second(hq.Client.Dial(ctx, "tcp", "nowhere")),
		"dial network":     second(hq.Client.Dial(ctx, "carrier-pigeon", "10.2.0.10:1")),
		"dial closed port": second(hq.Client.Dial(ctx, "tcp", netip.AddrPortFrom(st.Overlay, 7001).String())),
		"accept port":      second(hq.Client.Accept(ctx, 0)),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// lab --json prints one object a second.
func TestLabJSON(t *testing.T) {
	var out, errs bytes.Buffer
	code := cli.Main(t.Context(), cli.Env{
		Args: []string{"lab", "-json", "--duration=4s", "--listen=", "--log-level=error"}, Stdout: &out, Stderr: &errs,
	})
	// Only how to open the dashboard is told beside the reports.
	if code != 0 || strings.Count(errs.String(), "\n") != 2 || !strings.HasPrefix(errs.String(), "dashboard https://127.0.0.1:") {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	var reports []lab.Report
	for dec := json.NewDecoder(&out); ; {
		var r lab.Report
		if err := dec.Decode(&r); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		reports = append(reports, r)
	}
	if len(reports) < 3 || len(reports) > 5 {
		t.Fatalf("%d reports in 4 s", len(reports))
	}
	last := reports[len(reports)-1]
	if len(last.Sites) != 3 || len(last.Lines) != 6 || len(last.Calls) != 3 || len(last.Flows) == 0 {
		t.Errorf("%d sites, %d lines, %d calls, %d flows", len(last.Sites), len(last.Lines), len(last.Calls), len(last.Flows))
	}
	for i := 1; i < len(reports); i++ {
		if d := reports[i].At.Sub(reports[i-1].At); d < 500*time.Millisecond || d > 2*time.Second {
			t.Errorf("%v between two reports", d)
		}
	}
}

// Twenty sites in one process: the long set.
func TestTwentySites(t *testing.T) {
	if os.Getenv("PATRONUS_LONG") == "" {
		t.Skip("PATRONUS_LONG is not set")
	}
	f := start(t, 20)
	t.Logf("all paths up after %v", until(t, "all paths up", 90*time.Second, func() bool { return allUp(t, f) }))
	exchange(t, f.Sites[3].Host, f.Sites[17].Host, netip.AddrPortFrom(f.Sites[17].Addr6, 7))
}
