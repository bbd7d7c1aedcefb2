package vnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"
)

// fabric is a running relay between uplinks with real sockets.
type fabric struct {
	*Relay
	conns map[string]*net.UDPConn
}

func startRelay(t testing.TB, v6 bool, learn bool, uplinks ...string) fabric {
	t.Helper()
	local := "127.0.0.1:0"
	if v6 {
		local = "[::1]:0"
	}
	f := fabric{conns: make(map[string]*net.UDPConn)}
	var us []RelayUplink
	for _, name := range uplinks {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(local)))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadBuffer(relayBuffer)
		f.conns[name] = c
		a := c.LocalAddr().(*net.UDPAddr).AddrPort()
		if learn {
			a = netip.AddrPortFrom(a.Addr(), 0)
		}
		us = append(us, RelayUplink{Name: name, Site: name[:2], Addr: a})
	}
	r, err := NewRelay(RelayOptions{Uplinks: us, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	f.Relay = r
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		for _, c := range f.conns {
			c.Close()
		}
	})
	return f
}

func (f fabric) send(t testing.TB, from, to, payload string) {
	t.Helper()
	ep, err := f.Endpoint(from, to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.conns[from].WriteToUDPAddrPort([]byte(payload), ep); err != nil {
		t.Fatal(err)
	}
}

// receive returns the next datagram and which uplink it seems to come from.
func (f fabric) receive(t testing.TB, at string, wait time.Duration) (payload, from string) {
	t.Helper()
	if err := f.conns[at].SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, src, err := f.conns[at].ReadFromUDPAddrPort(buf)
	if err != nil {
		return "", ""
	}
	for k, p := range f.ports {
		if k[0] == at && p.addr.Port() == src.Port() {
			return string(buf[:n]), k[1]
		}
	}
	return string(buf[:n]), "stranger " + src.String()
}

func TestRelay(t *testing.T) {
	for _, c := range []struct {
		name      string
		v6, learn bool
	}{{"v4", false, false}, {"v6", true, false}, {"learned", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			f := startRelay(t, c.v6, c.learn, "hq0", "hq1", "ea0", "we0")
			if c.learn { // the others have to speak first
				for i, u := range []string{"ea0", "we0"} {
					f.send(t, u, "hq0", "hello")
					waitFor(t, func() bool { return f.Stats().Strays == uint64(i+1) })
				}
				f.send(t, "hq0", "ea0", "learn me")
				f.receive(t, "ea0", time.Second)
			}
			for _, p := range [][2]string{{"hq0", "ea0"}, {"ea0", "hq0"}, {"hq0", "we0"}, {"ea0", "we0"}} {
				f.send(t, p[0], p[1], "hi")
				if got, from := f.receive(t, p[1], time.Second); got != "hi" || from != p[0] {
					t.Errorf("%s to %s: got %q from %s", p[0], p[1], got, from)
				}
			}
			if _, err := f.Endpoint("hq0", "hq1"); !errors.Is(err, ErrRelayPair) {
				t.Errorf("uplinks of one site: %v", err)
			}
			if f.Pair("hq0", "hq1") != nil || f.Uplink("no") != nil {
				t.Error("links of what does not exist")
			}
		})
	}
}

func TestRelayImpairs(t *testing.T) {
	f := startRelay(t, false, false, "hq0", "ea0")
	f.Uplink("hq0").Set(Impairment{Delay: 20 * time.Millisecond})
	f.Pair("hq0", "ea0").Out.Set(Impairment{Delay: 30 * time.Millisecond})
	start := time.Now()
	f.send(t, "hq0", "ea0", "slow")
	got, _ := f.receive(t, "ea0", time.Second)
	if d := time.Since(start); got != "slow" || d < 50*time.Millisecond || d > 150*time.Millisecond {
		t.Errorf("got %q after %v", got, d)
	}
	f.Uplink("ea0").Break()
	f.send(t, "hq0", "ea0", "into the void")
	if got, _ := f.receive(t, "ea0", 100*time.Millisecond); got != "" {
		t.Errorf("a broken link carries %q", got)
	}
	f.Uplink("ea0").Heal()
	f.Uplink("hq0").Set(Impairment{})
	f.Pair("hq0", "ea0").Out.Set(Impairment{Loss: 0.5, Duplicate: 0.2})
	before := f.Pair("hq0", "ea0").Out.Stats()
	const n = 2000
	received := make(chan int)
	go func() {
		k := 0
		for {
			if got, _ := f.receive(t, "ea0", 300*time.Millisecond); got == "" {
				break
			}
			k++
		}
		received <- k
	}()
	for i := range n {
		f.send(t, "hq0", "ea0", fmt.Sprint(i))
		if i%50 == 0 {
			waitOffered(f.Pair("hq0", "ea0").Out, before.Offered+uint64(i))
		}
	}
	k := <-received
	st := f.Pair("hq0", "ea0").Out.Stats().Sub(before)
	if st.Offered != n || uint64(k) != st.Delivered+st.Duplicated || st.Lost < 900 || st.Lost > 1100 {
		t.Errorf("received %d, counted %+v, relay %+v", k, st, f.Stats())
	}
}

// waitOffered keeps a sender from overrunning the kernel's socket buffer.
func waitOffered(s *Shaper, n uint64) {
	for end := time.Now().Add(time.Second); s.Stats().Offered < n && time.Now().Before(end); {
		<-time.After(100 * time.Microsecond)
	}
}

func TestRelayStrays(t *testing.T) {
	f := startRelay(t, false, false, "hq0", "ea0")
	ep, _ := f.Endpoint("hq0", "ea0")
	stranger, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(ep))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, err := stranger.Write([]byte("let me in")); err != nil {
		t.Fatal(err)
	}
	if got, _ := f.receive(t, "ea0", 100*time.Millisecond); got != "" {
		t.Errorf("a stranger got %q through", got)
	}
	if s := f.Stats(); s.Strays != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestNewRelayRefuses(t *testing.T) {
	for _, o := range []RelayOptions{
		{Uplinks: []RelayUplink{{Name: "a"}, {Name: "a"}}},
		{Uplinks: []RelayUplink{{}}},
		{Uplinks: []RelayUplink{{Name: "a"}}, Pairs: [][2]string{{"a", "b"}}},
		{Uplinks: []RelayUplink{{Name: "a"}}, Pairs: [][2]string{{"a", "a"}}},
	} {
		if _, err := NewRelay(o); !errors.Is(err, ErrRelayUplink) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func BenchmarkRelay(b *testing.B) {
	for _, c := range []struct {
		name string
		imp  Impairment
	}{{"unimpaired", Impairment{}}, {"delay 5 ms", Impairment{Delay: 5 * time.Millisecond}}} {
		b.Run(c.name, func(b *testing.B) {
			f := startRelay(b, false, false, "hq0", "ea0")
			f.Pair("hq0", "ea0").Set(c.imp)
			ep, _ := f.Endpoint("hq0", "ea0")
			buf := make([]byte, 1450)
			in := make(chan struct{}, 256) // at most so many on the way
			go func() {
				b := make([]byte, 2048)
				for {
					if _, _, err := f.conns["ea0"].ReadFromUDPAddrPort(b); err != nil {
						return
					}
					<-in
				}
			}()
			b.SetBytes(int64(len(buf)))
			b.ReportAllocs()
			for b.Loop() {
				in <- struct{}{}
				if _, err := f.conns["hq0"].WriteToUDPAddrPort(buf, ep); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
