package lan

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"patronus/netstack/packet"
)

// namespace is a network namespace of this test alone.
type namespace struct {
	t    *testing.T
	name string
}

// newNamespaces makes one namespace per name; they vanish with the test.
func newNamespaces(t *testing.T, names ...string) []*namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: needs root to make network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("NOT RUN: needs the ip command (iproute2)")
	}
	all := make([]*namespace, len(names))
	for i, name := range names {
		full := fmt.Sprintf("lan%d-%s-%s", os.Getpid(), strings.ToLower(t.Name()[4:min(9, len(t.Name()))]), name)
		command(t, "ip", "netns", "add", full)
		t.Cleanup(func() { command(t, "ip", "netns", "del", full) })
		all[i] = &namespace{t: t, name: full}
		all[i].run("ip", "link", "set", "lo", "up")
	}
	return all
}

func command(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// run runs a command in the namespace.
func (n *namespace) run(args ...string) string {
	n.t.Helper()
	return command(n.t, append([]string{"ip", "netns", "exec", n.name}, args...)...)
}

// in runs f on a thread inside the namespace; sockets that it opens stay there.
func (n *namespace) in(f func() error) {
	n.t.Helper()
	done := make(chan error)
	go func() {
		// Never unlocked: the thread is of no use to others and ends with the
		// goroutine.
		runtime.LockOSThread()
		done <- func() error {
			fd, err := unix.Open("/var/run/netns/"+n.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return err
			}
			return f()
		}()
	}()
	if err := <-done; err != nil {
		n.t.Fatalf("in %s: %v", n.name, err)
	}
}

// poke sends one datagram.
func (n *namespace) poke(to netip.Addr) {
	n.t.Helper()
	n.in(func() error {
		c, err := net.Dial("udp", netip.AddrPortFrom(to, 9).String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("hello"))
		return err
	})
}

// bridge forwards from one port to the other and back until the test ends. With
// cut, superpackets are cut into segments on the way, as a tunnel would.
func bridge(t *testing.T, a, b Port, cut bool) {
	t.Helper()
	var wg sync.WaitGroup
	for _, d := range [2][2]Port{{a, b}, {b, a}} {
		wg.Go(func() {
			if err := forward(d[0], d[1], cut); err != nil {
				t.Errorf("%s to %s: %v", d[0].Name(), d[1].Name(), err)
			}
		})
	}
	t.Cleanup(func() {
		a.Close()
		b.Close()
		wg.Wait()
		t.Logf("%s: %+v", a.Name(), a.Counters())
		t.Logf("%s: %+v", b.Name(), b.Counters())
	})
}

func forward(from, to Port, cut bool) error {
	bufs := make([]*packet.Buffer, 32)
	var seg packet.Segmenter
	for {
		n, err := from.Read(bufs)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		var outs []Out
		for _, b := range bufs[:n] {
			if packet.Decode(b.Bytes, &b.Info) != packet.OK {
				continue
			}
			if !cut {
				outs = append(outs, Out{Bytes: b.Bytes, Info: &b.Info, GSO: b.GSO})
				continue
			}
			for seg.Reset(b); ; {
				p := make([]byte, seg.Len())
				if _, ok := seg.Next(p); !ok {
					break
				}
				in := new(packet.Info)
				if packet.Decode(p, in) == packet.OK {
					outs = append(outs, Out{Bytes: p, Info: in})
				}
			}
		}
		err = to.Write(outs)
		for _, b := range bufs[:n] {
			b.Release()
		}
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// transfer moves size bytes by TCP from one namespace to an address of the
// other and compares what arrived.
func transfer(t *testing.T, from, to *namespace, addr netip.Addr, size int) {
	t.Helper()
	var l net.Listener
	to.in(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	defer l.Close()
	var c net.Conn
	from.in(func() (err error) {
		c, err = (&net.Dialer{Timeout: 10 * time.Second}).Dial("tcp", l.Addr().String())
		return err
	})
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	deadline := time.Now().Add(60 * time.Second)
	c.SetDeadline(deadline)
	s.SetDeadline(deadline)

	data := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(data)
	sent := make(chan error, 1)
	start := time.Now()
	go func() {
		_, err := io.Copy(c, bytes.NewReader(data))
		sent <- errors.Join(err, c.(*net.TCPConn).CloseWrite())
	}()
	sum := sha256.New()
	n, err := io.Copy(sum, s)
	if err := errors.Join(err, <-sent); err != nil {
		t.Fatalf("after %d of %d bytes: %v", n, size, err)
	}
	if want := sha256.Sum256(data); !bytes.Equal(sum.Sum(nil), want[:]) {
		t.Fatalf("%d bytes arrived and differ from the %d that were sent", n, size)
	}
	dur := time.Since(start)
	t.Logf("%v: %d MB in %v, %.2f Gbit/s", addr, size>>20, dur.Round(time.Millisecond), float64(size)*8/dur.Seconds()/1e9)
}

// datagrams sends UDP datagrams in bursts of equal ones, which the kernel hands
// over as superpackets if it can, and waits for every one to come back.
func datagrams(t *testing.T, from, to *namespace, addr netip.Addr) {
	t.Helper()
	listen := func(ns *namespace, at netip.AddrPort) *net.UDPConn {
		var c *net.UDPConn
		ns.in(func() (err error) {
			c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
			return err
		})
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return c
	}
	unspecified := netip.IPv4Unspecified()
	if addr.Is6() {
		unspecified = netip.IPv6Unspecified()
	}
	s, c := listen(to, netip.AddrPortFrom(addr, 0)), listen(from, netip.AddrPortFrom(unspecified, 0))
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const size, count = 1000, 20
	raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) })
	server := s.LocalAddr().(*net.UDPAddr)
	buf := make([]byte, size+1)
	for round := range 10 {
		data := make([]byte, size*count-round*7)
		rand.NewChaCha8([32]byte{byte(round)}).Read(data)
		if _, err := c.WriteToUDP(data, server); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for len(got) < len(data) {
			n, _, err := s.ReadFromUDP(buf)
			if err != nil {
				t.Fatalf("round %d, %d of %d bytes: %v", round, len(got), len(data), err)
			}
			got = append(got, buf[:n]...)
		}
		if !bytes.Equal(got, data) {
			t.Fatalf("round %d: datagrams differ or changed order", round)
		}
	}
}
