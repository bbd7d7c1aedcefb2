package namespace

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// kinds are the LAN ports that most tests run over.
var kinds = []string{"packet", "tun"}

func TestForwarding(t *testing.T) {
	for _, kind := range kinds {
		for _, under := range families {
			t.Run(fmt.Sprintf("lan=%s/underlay=%v", kind, under), func(t *testing.T) {
				w := newWorld(t, plan{lan: kind, underlay: under})
				for _, f := range families {
					t.Run(f.String(), func(t *testing.T) { forwarding(t, w, f) })
				}
			})
		}
	}
}

func forwarding(t *testing.T, w *world, f family) {
	a, b := w.site("a"), w.site("b")
	ping(t, a.host, b.addr(f), "-c", "5", "-i", "0.02")
	ping(t, b.host, a.addr(f), "-c", "5", "-i", "0.02", "-s", "3000")
	t.Run("transfer", func(t *testing.T) {
		for _, way := range [][2]*site{{a, b}, {b, a}} {
			if err := transfer(way[0].host, way[1].host, way[1].addr(f), 32<<20); err != nil {
				t.Errorf("%s to %s: %v", way[0].name, way[1].name, err)
			}
		}
	})
	t.Run("mss", func(t *testing.T) { clamped(t, a, b, f) })
	t.Run("too-big", func(t *testing.T) { tooBig(t, a, b, f) })
	t.Run("ttl", func(t *testing.T) { expires(t, a, b, f) })
	if w.underlay == 4 { // it waits for hosts that are not there, whatever the underlay
		t.Run("unreachable", func(t *testing.T) { unreachable(t, a, b, f) })
	}
}

// ping must lose nothing.
func ping(t testing.TB, from netns, to netip.Addr, args ...string) {
	t.Helper()
	out, err := pings(from, to, args...)
	if err != nil {
		t.Errorf("ping %s %v: %v\n%s", to, args, err, out)
	}
}

func pings(from netns, to netip.Addr, args ...string) (string, error) {
	args = append(append([]string{"ping", "-n", "-W", "2"}, args...), to.String())
	out, err := exec.Command("ip", append([]string{"netns", "exec", string(from)}, args...)...).CombinedOutput()
	return string(out), err
}

// pathMTU is the largest packet that the paths of a site carry.
func pathMTU(t testing.TB, s *site) int {
	t.Helper()
	paths, err := s.paths()
	if err != nil {
		t.Fatal(err)
	}
	return paths[0].MTU
}

// header is the length of an IP header without options.
func (f family) header() int {
	if f == 4 {
		return 20
	}
	return 40
}

// clamped checks the MSS that both ends of a connection end up with.
func clamped(t *testing.T, a, b *site, f family) {
	l := b.host.listen(t, netip.AddrPortFrom(b.addr(f), 0))
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			accepted <- c
		}
	}()
	c, err := a.host.dial(l.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	far := <-accepted
	defer far.Close()
	// The kernel takes its timestamp option (12 bytes) off what the peer said.
	want := pathMTU(t, a) - f.header() - 20
	for name, conn := range map[string]*net.TCPConn{"client": c, "server": far.(*net.TCPConn)} {
		got := maxSegment(t, conn)
		if got > want || got < want-12 {
			t.Errorf("%s has MSS %d, wanted %d to %d", name, got, want-12, want)
		}
	}
}

func maxSegment(t *testing.T, c *net.TCPConn) (mss int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		ctl := raw.Control(func(fd uintptr) { mss, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) })
		if err == nil {
			err = ctl
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return mss
}

var toldMTU = regexp.MustCompile(`mtu ?[=:] ?(\d+)`)

// tooBig sends pings that must not be fragmented, one byte around the edge.
func tooBig(t *testing.T, a, b *site, f family) {
	mtu := pathMTU(t, a)
	fits := mtu - f.header() - 8
	// What the kernel has learned already it would answer by itself.
	a.host.run(t, "ip", fmt.Sprintf("-%d", int(f)), "route", "flush", "cache")
	ping(t, a.host, b.addr(f), "-c", "1", "-M", "do", "-s", strconv.Itoa(fits))
	out, err := pings(a.host, b.addr(f), "-c", "1", "-M", "do", "-s", strconv.Itoa(fits+1))
	m := toldMTU.FindStringSubmatch(out)
	if err == nil || m == nil || m[1] != strconv.Itoa(mtu) {
		t.Errorf("a packet of %d bytes over a path of %d: %v\n%s", fits+1+8+f.header(), mtu, err, out)
	}
	if strings.Contains(out, "local error") {
		t.Errorf("the kernel answered by itself:\n%s", out)
	}
}

var answered = regexp.MustCompile(`(?m)^From ([0-9a-f.:]+?):? icmp_seq=\d+ (.*)$`)

// answerTo pings once and returns who answered with an error, and what.
func answerTo(from netns, to netip.Addr, args ...string) (who, what string) {
	out, _ := pings(from, to, append(args, "-c", "1")...)
	if m := answered.FindStringSubmatch(out); m != nil {
		return m[1], m[2]
	}
	return "", out
}

// expires walks to the far host as traceroute does.
func expires(t *testing.T, a, b *site, f family) {
	hops := []netip.Addr{a.router(f), b.router(f)}
	if a.w.lan == "tun" {
		// The kernel routers are hops as well.
		ports := []netip.Addr{tunAddr(a, f), tunAddr(b, f)}
		hops = []netip.Addr{a.router(f), ports[0], ports[1], {}}
	}
	for i, hop := range hops {
		who, what := answerTo(a.host, b.addr(f), "-t", strconv.Itoa(i+1))
		if hop.IsValid() && who != hop.String() || !regexp.MustCompile(`Time to live exceeded|Time exceeded: Hop limit`).MatchString(what) {
			t.Errorf("hop %d: %q says %q, wanted %v to say that time is exceeded", i+1, who, what, hop)
		}
	}
	ping(t, a.host, b.addr(f), "-c", "1", "-t", strconv.Itoa(len(hops)+1))
}

func tunAddr(s *site, f family) netip.Addr {
	if f == 4 {
		return netip.AddrFrom4([4]byte{10, byte(s.n), 255, 1})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd00:0:%d:ffff::1", s.n))
}

// unreachable asks for what is not there: a network nobody has, one that the
// far site owns without having a port for it, and a host that does not answer.
func unreachable(t *testing.T, a, b *site, f family) {
	if a.w.lan == "tun" {
		t.Skip("the kernel routes behind a tun port, and answers for itself")
	}
	nowhere, unused := netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("10.2.77.1")
	if f == 6 {
		nowhere, unused = netip.MustParseAddr("fd00:0:99::1"), netip.MustParseAddr("fd00:0:2:77::1")
	}
	told := regexp.MustCompile(`(?i)unreachable|no route`)
	for _, c := range []struct {
		name    string
		to, who netip.Addr
	}{{"no route", nowhere, a.router(f)}, {"no port", unused, b.router(f)}, {"no host", b.at(f, 99), b.router(f)}} {
		who, what := answerTo(a.host, c.to, "-W", "6")
		if who != c.who.String() || !told.MatchString(what) {
			t.Errorf("%s: %q says %q, wanted %v to say unreachable", c.name, who, what, c.who)
		}
	}
}
