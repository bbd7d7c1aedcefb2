package vnet

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"patronus/netstack/lan"
)

// twoHosts runs hosts on the ends of a cable until the test ends.
func twoHosts(t testing.TB) (a, b *Host) {
	t.Helper()
	ca, cb := lan.NewCable(lan.CableOptions{MTU: 1500})
	host := func(name string, c *lan.Cable, addrs ...netip.Addr) *Host {
		h, err := NewHost(HostOptions{Name: name, Port: c, Addrs: addrs})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	a = host("a", ca, addr("10.0.0.1"), addr("fd00::1"))
	b = host("b", cb, addr("10.0.0.2"), addr("fd00::2"))
	ctx, cancel := context.WithCancel(context.Background())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.Run(ctx) })
	g.Go(func() error { return b.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Errorf("hosts: %v", err)
		}
	})
	return a, b
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// background runs a sink until the test ends, before the hosts do.
func background(t testing.TB, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("background: %v", err)
		}
	})
}

func TestHost(t *testing.T) {
	a, b := twoHosts(t)
	for _, c := range []struct {
		name, dst, any string
		port           uint16
	}{
		{"v4", "10.0.0.2", "0.0.0.0", 7}, {"v6", "fd00::2", "::", 8},
	} {
		dst := addr(c.dst)
		t.Run(c.name+"/ping", func(t *testing.T) {
			for _, size := range []int{0, 56, 1400, 4000} { // the last is fragmented
				rtt, err := a.Ping(within(t, 5*time.Second), dst, size)
				if err != nil || rtt <= 0 {
					t.Errorf("size %d: %v, %v", size, rtt, err)
				}
			}
		})
		t.Run(c.name+"/tcp", func(t *testing.T) {
			l, err := b.ListenTCP(netip.AddrPortFrom(addr(c.any), c.port))
			if err != nil {
				t.Fatal(err)
			}
			background(t, func(ctx context.Context) error {
				stop := context.AfterFunc(ctx, func() { l.Close() })
				defer stop()
				conn, err := l.Accept()
				if err != nil {
					return err
				}
				defer conn.Close()
				_, err = io.Copy(conn, conn)
				return err
			})
			conn, err := a.DialTCP(within(t, 5*time.Second), netip.AddrPortFrom(dst, c.port))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte("echo")); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 4)
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != "echo" {
				t.Errorf("%q, %v", got, err)
			}
		})
		t.Run(c.name+"/tcp load", func(t *testing.T) {
			sink, err := b.SinkTCP(netip.AddrPortFrom(dst, 5001))
			if err != nil {
				t.Fatal(err)
			}
			background(t, sink.Run)
			sent, err := a.SendTCP(within(t, 20*time.Second), netip.AddrPortFrom(dst, 5001), TCPLoad{Bytes: 1 << 20})
			if err != nil || sent.Bytes != 1<<20 {
				t.Fatalf("%+v, %v", sent, err)
			}
			waitFor(t, func() bool { return sink.Report().Bytes == 1<<20 })
			if r := sink.Report(); r.Connections != 1 || r.Goodput() <= 0 {
				t.Errorf("%+v", r)
			}
			// 8 Mb/s for 300 ms are 300 kB.
			sent, err = a.SendTCP(within(t, 20*time.Second), netip.AddrPortFrom(dst, 5001), TCPLoad{Rate: 8e6, Duration: 300 * time.Millisecond})
			if err != nil || sent.Bytes < 200e3 || sent.Bytes > 320e3 {
				t.Errorf("limited: %+v, %v", sent, err)
			}
		})
		t.Run(c.name+"/udp load", func(t *testing.T) {
			sink, err := b.SinkUDP(netip.AddrPortFrom(dst, 5002))
			if err != nil {
				t.Fatal(err)
			}
			background(t, sink.Run)
			load := UDPLoad{Rate: 4e6, Size: 500, Count: 200}
			sent, err := a.SendUDP(within(t, 20*time.Second), netip.AddrPortFrom(dst, 5002), load)
			if err != nil || sent.Packets != 200 {
				t.Fatalf("%+v, %v", sent, err)
			}
			if sent.Elapsed < 190*time.Millisecond { // but for a burst to catch up
				t.Errorf("200 packets a millisecond apart took %v", sent.Elapsed)
			}
			waitFor(t, func() bool { return sink.Report().Received == 200 })
			r := sink.Report()
			if r.Lost+r.Duplicated+r.Reordered != 0 || r.Bytes != 100000 || r.LatencyMax == 0 || r.LatencyP50 > r.LatencyP99 {
				t.Errorf("%+v", r)
			}
		})
	}
}

func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("it did not happen in 10 s")
		}
	}
}

func TestHostErrors(t *testing.T) {
	a, _ := twoHosts(t)
	if _, err := a.SendUDP(t.Context(), addrPort("10.0.0.2:1"), UDPLoad{Rate: 1, Size: 5}); !errors.Is(err, ErrLoad) {
		t.Errorf("too small a packet: %v", err)
	}
	if _, err := a.DialTCP(within(t, 5*time.Second), addrPort("10.0.0.2:1")); err == nil {
		t.Error("connected to a closed port")
	}
	if _, err := a.Ping(within(t, 50*time.Millisecond), addr("10.9.9.9"), 8); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ping into nothing: %v", err)
	}
	c, _ := lan.NewCable(lan.CableOptions{})
	only4, err := NewHost(HostOptions{Name: "c", Port: c, Addrs: []netip.Addr{addr("10.0.0.3")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := only4.Ping(t.Context(), addr("fd00::2"), 8); !errors.Is(err, ErrNoFamily) {
		t.Errorf("no IPv6: %v", err)
	}
	if _, err := NewHost(HostOptions{Name: "d", Port: c, Addrs: []netip.Addr{addr("10.0.0.3"), addr("10.0.0.3")}}); err == nil {
		t.Error("took an address twice")
	}
	only4.Close()
	only4.Close()
}

func TestArrivals(t *testing.T) {
	seqs := func(s ...uint64) []uint64 { return s }
	for _, c := range []struct {
		name                                 string
		seqs                                 []uint64
		received, lost, duplicated, reorders uint64
	}{
		{"in order", seqs(0, 1, 2), 3, 0, 0, 0},
		{"hole", seqs(0, 1, 4), 3, 2, 0, 0},
		{"first missing", seqs(2, 3), 2, 2, 0, 0},
		{"late", seqs(0, 2, 1, 3), 4, 0, 0, 1},
		{"copy", seqs(0, 1, 1, 2, 0), 3, 0, 2, 0},
		{"late copy", seqs(0, 2, 1, 1), 3, 0, 1, 1},
		{"window passed", seqs(0, seqWindow*2, 5), 2, seqWindow*2 - 1, 1, 0},
		{"window reused", seqs(1, seqWindow+1, 2), 3, seqWindow - 1, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var a arrivals
			for i, s := range c.seqs {
				at := epoch.Add(time.Duration(i) * time.Second)
				if i == len(c.seqs)-1 {
					at = at.Add(time.Second)
				}
				a.observe(s, 10, at)
			}
			r := a.report
			if r.Received != c.received || r.Lost != c.lost || r.Duplicated != c.duplicated || r.Reordered != c.reorders {
				t.Errorf("%+v", r)
			}
			if c.duplicated == 0 && (r.LongestGap != 2*time.Second || !r.GapAt.Equal(epoch.Add(time.Duration(len(c.seqs))*time.Second))) {
				t.Errorf("gap %v at %v", r.LongestGap, r.GapAt)
			}
		})
	}
}

func TestLatencies(t *testing.T) {
	var l latencies
	for i := 1; i <= 1000; i++ {
		l.observe(time.Duration(i) * time.Microsecond)
	}
	var r UDPReport
	l.fill(&r)
	for _, c := range []struct{ got, want time.Duration }{
		{r.LatencyMin, time.Microsecond},
		{r.LatencyMax, time.Millisecond},
		{r.LatencyP50, 500 * time.Microsecond},
		{r.LatencyP99, 990 * time.Microsecond},
	} {
		if c.got < c.want || float64(c.got) > float64(c.want)*17/16 {
			t.Errorf("got %v, want about %v", c.got, c.want)
		}
	}
	for v := uint64(1); v < 1<<62; v += v/4 + 1 {
		if b := bucketOf(v); bucketTop(b) < v || b > 0 && bucketTop(b-1) >= v {
			t.Fatalf("%d is in bucket %d up to %d", v, b, bucketTop(b))
		}
	}
}

func BenchmarkHostTCP(b *testing.B) {
	x, y := twoHosts(b)
	sink, err := y.SinkTCP(addrPort("10.0.0.2:5001"))
	if err != nil {
		b.Fatal(err)
	}
	background(b, sink.Run)
	const size = 1 << 20
	b.SetBytes(size)
	sent, err := x.SendTCP(b.Context(), addrPort("10.0.0.2:5001"), TCPLoad{Bytes: size * int64(b.N)})
	if err != nil || sent.Bytes != size*int64(b.N) {
		b.Fatal(sent, err)
	}
}
