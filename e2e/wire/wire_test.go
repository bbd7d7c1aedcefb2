package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"patronus/e2e/vnet"
)

func sh(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// lab is two namespaces with a running Wire between them.
type lab struct {
	*Wire
	left, right string // namespaces
}

func start(t testing.TB, control string) lab {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("namespaces need root")
	}
	id := strconv.Itoa(os.Getpid())
	l := lab{left: "wl" + id, right: "wr" + id}
	mid := "wm" + id
	for _, ns := range []string{l.left, l.right, mid} {
		sh(t, "ip", "netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	}
	for i, ns := range []string{l.left, l.right} {
		port := fmt.Sprintf("p%d", i)
		sh(t, "ip", "-n", mid, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns)
		sh(t, "ip", "netns", "exec", mid, "sysctl", "-qw", "net.ipv6.conf."+port+".disable_ipv6=1")
		sh(t, "ip", "-n", mid, "link", "set", port, "up")
		sh(t, "ip", "-n", ns, "link", "set", "lo", "up")
		sh(t, "ip", "-n", ns, "link", "set", "eth0", "up")
		sh(t, "ip", "-n", ns, "addr", "add", fmt.Sprintf("10.77.0.%d/24", i+1), "dev", "eth0")
		sh(t, "ip", "-n", ns, "addr", "add", fmt.Sprintf("fd77::%d/64", i+1), "dev", "eth0", "nodad")
	}
	w, err := New(Config{A: End{mid, "p0"}, B: End{mid, "p1"}, Seed: 3, Control: control})
	if err != nil {
		t.Fatal(err)
	}
	l.Wire = w
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return l
}

var (
	pingCounts = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received(?:, \+(\d+) duplicates)?`)
	pingTimes  = regexp.MustCompile(`= ([\d.]+)/([\d.]+)/([\d.]+)/`)
)

type pinged struct {
	sent, received, duplicates int
	min, avg                   time.Duration
}

// ping sends n from the left, every 5 ms.
func (l lab) ping(t testing.TB, dst string, n int, extra ...string) (p pinged) {
	t.Helper()
	args := append([]string{"netns", "exec", l.left, "ping", "-n", "-q", "-i", "0.005", "-W", "1", "-c", strconv.Itoa(n)}, extra...)
	out, _ := exec.Command("ip", append(args, dst)...).CombinedOutput() // losses are exit code 1
	m := pingCounts.FindSubmatch(out)
	if m == nil {
		t.Fatalf("ping says %s", out)
	}
	p.sent, _ = strconv.Atoi(string(m[1]))
	p.received, _ = strconv.Atoi(string(m[2]))
	p.duplicates, _ = strconv.Atoi(string(m[3]))
	if m := pingTimes.FindSubmatch(out); m != nil {
		for i, d := range []*time.Duration{&p.min, &p.avg} {
			f, _ := strconv.ParseFloat(string(m[i+1]), 64)
			*d = time.Duration(f * float64(time.Millisecond))
		}
	}
	return p
}

func TestWire(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	control := filepath.Join(t.TempDir(), "ctl")
	l := start(t, control)
	for _, dst := range []string{"10.77.0.2", "fd77::2"} {
		if p := l.ping(t, dst, 5, "-s", "1400"); p.received != 5 {
			t.Fatalf("ping %s over a perfect wire: %+v", dst, p)
		}
	}
	t.Run("delay", func(t *testing.T) {
		l.Link().Out.Set(vnet.Impairment{Delay: 20 * time.Millisecond})
		l.Link().In.Set(vnet.Impairment{Delay: 10 * time.Millisecond})
		p := l.ping(t, "10.77.0.2", 50)
		if p.received != 50 || p.min < 30*time.Millisecond || p.min > 40*time.Millisecond {
			t.Errorf("asked for 30 ms: %+v", p)
		}
	})
	t.Run("loss is as counted", func(t *testing.T) {
		l.Link().Set(vnet.Impairment{})
		outBefore, inBefore := l.Link().Stats()
		l.Link().Out.Set(vnet.Impairment{Loss: 0.1})
		l.Link().In.Set(vnet.Impairment{Duplicate: 0.2})
		p := l.ping(t, "fd77::2", 400)
		out, in := l.Link().Stats()
		out, in = out.Sub(outBefore), in.Sub(inBefore)
		// Neighbour discovery may lose a packet of its own.
		if missing := p.sent - p.received; missing < 20 || missing > 65 || uint64(missing) > out.Lost || out.Lost > uint64(missing)+3 {
			t.Errorf("ping misses %d, the wire lost %d", missing, out.Lost)
		}
		if d := uint64(p.duplicates); d < 40 || d > in.Duplicated || in.Duplicated > d+3 {
			t.Errorf("ping sees %d copies, the wire made %d", d, in.Duplicated)
		}
	})
	t.Run("control", func(t *testing.T) {
		c, err := net.Dial("unix", control)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		enc, dec := json.NewEncoder(c), json.NewDecoder(c)
		do := func(cmd Command) (r Reply) {
			t.Helper()
			if err := errors.Join(enc.Encode(cmd), dec.Decode(&r)); err != nil {
				t.Fatal(err)
			}
			return r
		}
		if r := do(Command{Cmd: "set", Impairment: &vnet.Impairment{Delay: 15 * time.Millisecond}}); r.Error != "" {
			t.Fatal(r.Error)
		}
		if p := l.ping(t, "10.77.0.2", 10); p.received != 10 || p.min < 30*time.Millisecond {
			t.Errorf("after set: %+v", p)
		}
		do(Command{Cmd: "set", Impairment: &vnet.Impairment{}})
		do(Command{Cmd: "break", Dir: "ba"})
		if p := l.ping(t, "10.77.0.2", 10); p.received != 0 {
			t.Errorf("black hole: %+v", p)
		}
		if s := sh(t, "ip", "-n", l.left, "link", "show", "eth0"); !strings.Contains(s, "LOWER_UP") {
			t.Errorf("a black hole costs carrier: %s", s)
		}
		if r := do(Command{Cmd: "stats"}); r.BtoA == nil || r.BtoA.Blackholed < 10 || r.AtoB.Blackholed != 0 {
			t.Errorf("stats %+v", r)
		}
		do(Command{Cmd: "heal"})
		if p := l.ping(t, "10.77.0.2", 10); p.received != 10 {
			t.Errorf("healed: %+v", p)
		}
		if r := do(Command{Cmd: "carrier", End: "a"}); r.Error != "" {
			t.Fatal(r.Error)
		}
		if s := sh(t, "ip", "-n", l.left, "link", "show", "eth0"); !strings.Contains(s, "NO-CARRIER") {
			t.Errorf("carrier is still there: %s", s)
		}
		do(Command{Cmd: "carrier", End: "a", Up: true})
		if p := l.ping(t, "10.77.0.2", 10); p.received == 0 {
			t.Errorf("carrier back: %+v", p)
		}
	})
	t.Run("superpackets", func(t *testing.T) {
		l.Link().Set(vnet.Impairment{})
		for _, dst := range []string{"10.77.0.2", "fd77::2"} {
			tcpThrough(t, l, dst, 8<<20)
		}
		if s := l.Stats(); s.Cut == 0 || s.Uncut != 0 {
			t.Errorf("stats %+v: veth sends superpackets", s)
		}
	})
}

// tcpThrough sends size bytes from left to right by the kernels' TCP.
func tcpThrough(t *testing.T, l lab, dst string, size int) {
	t.Helper()
	var ln net.Listener
	var c net.Conn
	if err := inNetns(l.right, func() (err error) {
		ln, err = net.Listen("tcp", net.JoinHostPort(dst, "0"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	got := make(chan []byte, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var all bytes.Buffer
		_, _ = all.ReadFrom(c)
		got <- all.Bytes()
	}()
	if err := inNetns(l.left, func() (err error) {
		c, err = net.DialTimeout("tcp", ln.Addr().String(), 5*time.Second)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	begin := time.Now()
	if _, err := c.Write(want); err != nil {
		t.Fatal(err)
	}
	c.Close()
	select {
	case b := <-got:
		if !bytes.Equal(b, want) {
			t.Errorf("%s: %d bytes arrived of %d, or others", dst, len(b), len(want))
		}
		t.Logf("%s: %.0f Mb/s", dst, float64(size)*8/1e6/time.Since(begin).Seconds())
	case <-time.After(30 * time.Second):
		t.Errorf("%s: %d bytes did not arrive in 30 s: %+v", dst, size, l.Stats())
	}
}

func TestCommandsRefused(t *testing.T) {
	w := &Wire{link: vnet.Link{Out: vnet.NewShaper(vnet.Impairment{}, 1), In: vnet.NewShaper(vnet.Impairment{}, 2)}}
	in := strings.Join([]string{
		`{"cmd":"set"}`, `{"cmd":"dance"}`, `{"cmd":"heal","dir":"up"}`, `not json`,
		`{"cmd":"set","impairment":{"loss":2}}`, `{"cmd":"carrier","end":"c"}`,
	}, "\n")
	var out bytes.Buffer
	if err := w.Control(strings.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 6 {
		t.Fatalf("%d answers: %s", len(lines), &out)
	}
	for _, l := range lines {
		if !strings.Contains(l, ErrCommand.Error()) {
			t.Errorf("answer %s", l)
		}
	}
	if _, err := New(Config{A: End{Interface: "no-such-if0"}}); err == nil {
		t.Error("opened an interface that is not there")
	}
	if _, err := New(Config{AtoB: vnet.Impairment{Loss: 2}}); !errors.Is(err, vnet.ErrImpairment) {
		t.Errorf("impossible loss: %v", err)
	}
	if err := inNetns("no-such-namespace", func() error { return nil }); err == nil {
		t.Error("entered a namespace that is not there")
	}
}
