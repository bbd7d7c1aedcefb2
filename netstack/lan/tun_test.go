package lan

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"patronus/netstack/packet"
)

var (
	testNets4 = [2]netip.Prefix{netip.MustParsePrefix("10.77.1.1/24"), netip.MustParsePrefix("10.77.2.1/24")}
	testNets6 = [2]netip.Prefix{netip.MustParsePrefix("fd77:1::1/64"), netip.MustParsePrefix("fd77:2::1/64")}
)

// openTUN opens side i of a pair of TUN ports that route to each other.
func openTUN(t *testing.T, ns *namespace, i int) *TUN {
	t.Helper()
	var p *TUN
	ns.in(func() (err error) {
		p, err = OpenTUN(TUNOptions{
			Name: fmt.Sprintf("tun%d", i), MTU: 1420,
			Addresses: []netip.Prefix{testNets4[i], testNets6[i]},
			Routes:    []Route{{Prefix: testNets4[1-i].Masked()}, {Prefix: testNets6[1-i].Masked()}},
		})
		return err
	})
	t.Cleanup(func() { p.Close() })
	return p
}

func TestTUNCarriesTCPAndUDP(t *testing.T) {
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprintf("cut=%v", cut), func(t *testing.T) {
			ns := newNamespaces(t, "a", "b")
			a, b := openTUN(t, ns[0], 0), openTUN(t, ns[1], 1)
			bridge(t, a, b, cut)
			for _, addr := range []netip.Addr{testNets4[1].Addr(), testNets6[1].Addr()} {
				ns[0].run("ping", "-c", "2", "-i", "0.2", "-W", "5", "-M", "do", "-s", "1300", addr.String())
				transfer(t, ns[0], ns[1], addr, transferSize)
				datagrams(t, ns[0], ns[1], addr)
			}
			if got := a.Counters(); got.RxMerged == 0 {
				t.Errorf("no superpacket was read: %+v", got)
			}
			if got := b.Counters(); got.TxMerged == 0 {
				t.Errorf("no superpacket was written: %+v", got)
			}
		})
	}
}

func TestTUNCloseUnblocksRead(t *testing.T) {
	ns := newNamespaces(t, "a")
	p := openTUN(t, ns[0], 0)
	done := make(chan error)
	go func() {
		bufs := make([]*packet.Buffer, 4)
		for {
			if _, err := p.Read(bufs); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 2 {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("Read after Close: %v", err)
	}
	if err := p.Write([]Out{{Bytes: tcpPacket(segmentSpec{payload: 10})}}); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("Write after Close: %v", err)
	}
}

func TestTUNReportsADeletedInterface(t *testing.T) {
	ns := newNamespaces(t, "a")
	p := openTUN(t, ns[0], 0)
	done := make(chan error)
	go func() {
		bufs := make([]*packet.Buffer, 4)
		for {
			if _, err := p.Read(bufs); err != nil {
				done <- err
				return
			}
		}
	}()
	ns[0].run("ip", "link", "del", "tun0")
	if err := <-done; !errors.Is(err, ErrGone) {
		t.Fatalf("Read of a deleted interface: %v", err)
	}
}

// A descriptor that somebody else opened is used as it is, and survives the
// port that used it before.
func TestTUNFromDescriptor(t *testing.T) {
	ns := newNamespaces(t, "a", "b")
	b := openTUN(t, ns[1], 1)
	var held int
	ns[0].in(func() (err error) {
		if held, err = (TUNDevice{Name: "tun0"}).Open(); err != nil {
			return err
		}
		return ConfigureLink(Link{
			Name: "tun0", MTU: 1420, Addresses: []netip.Prefix{testNets4[0], testNets6[0]},
			Routes: []Route{{Prefix: testNets4[1].Masked()}, {Prefix: testNets6[1].Masked()}},
		})
	})
	defer unix.Close(held)
	for range 2 {
		fd, err := unix.Dup(held)
		if err != nil {
			t.Fatal(err)
		}
		p, err := OpenTUN(TUNOptions{MTU: 1420, Opener: Descriptor(fd)})
		if err != nil {
			t.Fatal(err)
		}
		if p.Name() != "tun0" {
			t.Fatalf("name %q", p.Name())
		}
		done := make(chan error)
		go func() { done <- forward(p, b, false) }()
		ns[0].poke(testNets4[1].Addr())
		waitFor(t, func() bool { return p.Counters().RxPackets > 0 })
		p.Close()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// A machine whose new interfaces come without IPv6 gets it where it is asked
// for; one that has none keeps its IPv4.
func TestLinkWithoutIPv6(t *testing.T) {
	ns := newNamespaces(t, "a")[0]
	ns.in(func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	})
	l := Link{
		Name: "tun0", MTU: 1420, Addresses: []netip.Prefix{testNets4[0], testNets6[0]},
		Routes: []Route{{Prefix: testNets4[1].Masked()}, {Prefix: testNets6[1].Masked()}},
	}
	ns.in(func() error {
		fd, err := (TUNDevice{Name: "tun0"}).Open()
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if enable6("none0") {
			t.Error("an interface that is not there carries IPv6")
		}
		return ConfigureLink(l)
	})
	only := l.only4()
	if len(only.Addresses) != 1 || len(only.Routes) != 1 || only.wants6() || !l.wants6() {
		t.Errorf("without IPv6: %+v", only)
	}
}

func TestOpenTUNRefusesOtherDescriptors(t *testing.T) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTUN(TUNOptions{Opener: Descriptor(fd)}); !errors.Is(err, ErrDescriptor) {
		t.Fatalf("got %v", err)
	}
}
