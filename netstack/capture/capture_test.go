package capture

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/gopacket/pcapgo"

	"patronus/netstack/packet"
)

func info(proto uint8, src, dst string) *packet.Info {
	k := packet.NewKey(proto, netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst))
	in := &packet.Info{Key: k, Version: 4}
	if !k.Src.Is4() {
		in.Version = 6
	}
	return in
}

func TestFilter(t *testing.T) {
	web := info(packet.TCP, "10.1.0.5:40000", "10.2.0.9:443")
	dns := info(packet.UDP, "[fd00::1]:5353", "[fd00:0:2::9]:53")
	ping := info(packet.ICMP, "10.1.0.5:8", "10.2.0.9:0")
	later := info(packet.TCP, "10.1.0.5:0", "10.2.0.9:0")
	later.Fragment = packet.LaterFragment
	for _, tc := range []struct {
		filter string
		want   string // of web, dns, ping, later
	}{
		{"", "wdpl"},
		{"tcp", "wl"},
		{"not tcp", "dp"},
		{"udp and ip6", "d"},
		{"ip", "wpl"},
		{"proto 1", "p"},
		{"icmp", "p"},
		{"host 10.1.0.5", "wpl"},
		{"src host 10.1.0.5 and port 443", "w"},
		{"dst host 10.1.0.5", ""},
		{"net 10.2.0.0/16", "wpl"},
		{"net 10.2.0.7/16", "wpl"},
		{"src net fd00::/32", "d"},
		{"dst net fd00:0:2::/48", "d"},
		{"net ::ffff:10.2.0.0/112", "wpl"},
		{"host ::ffff:10.1.0.5", "wpl"},
		{"not src net 0.0.0.0/0", "d"},
		{"port 53", "d"},
		{"src port 443", ""},
		{"dst port 443", "w"},
		{"port 0", ""},
		{"net 10.1.0.5", "wpl"},
	} {
		f, err := ParseFilter(tc.filter)
		if err != nil {
			t.Errorf("%q: %v", tc.filter, err)
			continue
		}
		got := ""
		for _, p := range []struct {
			name string
			in   *packet.Info
		}{{"w", web}, {"d", dns}, {"p", ping}, {"l", later}} {
			if f.Match(p.in) {
				got += p.name
			}
		}
		if got != tc.want {
			t.Errorf("%q selects %q, want %q", tc.filter, got, tc.want)
		}
		again, err := ParseFilter(f.String())
		if err != nil || again.String() != f.String() {
			t.Errorf("%q became %q, which is read as %v, %v", tc.filter, f, again, err)
		}
		if n := testing.AllocsPerRun(10, func() { f.Match(web) }); n != 0 {
			t.Errorf("%q allocates %v times", tc.filter, n)
		}
	}
}

func TestFilterRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"host":                                `filter: after word 1: is not an IP address`,
		"host example.com":                    `filter: word 2, "example.com": is not an IP address`,
		"host fe80::1%eth0":                   `filter: word 2, "fe80::1%eth0": is not an IP address`,
		"net 10.0.0.0/33":                     `filter: word 2, "10.0.0.0/33": is not a prefix such as 10.1.0.0/16`,
		"net ::ffff:10.0.0.0/90":              `filter: word 2, "::ffff:10.0.0.0/90": is not a prefix such as 10.1.0.0/16`,
		"port 65536":                          `filter: word 2, "65536": is not a number from 0 to 65535`,
		"proto 256":                           `filter: word 2, "256": is not a number from 0 to 255`,
		"tcp port 80":                         `filter: word 2, "port": terms are joined by "and"`,
		"tcp and":                             `filter: after word 2: is none of host, net, port, proto, tcp, udp, sctp, icmp, icmp6, ip, ip6`,
		"src tcp":                             `filter: word 2, "tcp": is none of host, net, port, proto, tcp, udp, sctp, icmp, icmp6, ip, ip6`,
		strings.Repeat("tcp and ", 16) + "ip": `filter: word 32, "and": a filter has at most 16 terms`,
	} {
		f, err := ParseFilter(text)
		var bad *FilterError
		if !errors.As(err, &bad) || err.Error() != want {
			t.Errorf("%q: %v, %v, want %s", text, f, err, want)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add("src host 10.1.0.5 and not dst port 443 and udp")
	f.Add("net fd00::/8 and ip6 and proto 17")
	web := info(packet.TCP, "10.1.0.5:40000", "10.2.0.9:443")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseFilter(text)
		if err != nil {
			return
		}
		again, err := ParseFilter(p.String())
		if err != nil || again.Match(web) != p.Match(web) || again.String() != p.String() {
			t.Errorf("%q became %q: %v", text, p, err)
		}
	})
}

func TestTapWritesWhatWasOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tap := New(Options{SnapSize: 4, Packets: 3})
		var file bytes.Buffer
		done := make(chan Result)
		go func() {
			res, err := tap.Run(t.Context(), &file)
			if err != nil {
				t.Error(err)
			}
			done <- res
		}()
		began := time.Now()
		tap.Offer([]byte{0x45, 1}, "to_wan hq.wan0~east.wan0")
		time.Sleep(1500 * time.Microsecond)
		tap.Offer([]byte{0x45, 2, 3, 4, 5, 6}, "from_wan dropped denied")
		tap.Offer([]byte{0x60, 3}, "to_wan hq.wan0~east.wan0")
		if res := <-done; res != (Result{Packets: 3, Bytes: 8}) {
			t.Errorf("%+v", res)
		}
		r, err := pcapgo.NewNgReader(&file, pcapgo.DefaultNgReaderOptions)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []struct {
			data  []byte
			size  int
			iface string
			after time.Duration
		}{
			{[]byte{0x45, 1}, 2, "to_wan hq.wan0~east.wan0", 0},
			{[]byte{0x45, 2, 3, 4}, 6, "from_wan dropped denied", 1500 * time.Microsecond},
			{[]byte{0x60, 3}, 2, "to_wan hq.wan0~east.wan0", 1500 * time.Microsecond},
		} {
			data, ci, err := r.ReadPacketData()
			if err != nil {
				t.Fatal(err)
			}
			iface, err := r.Interface(ci.InterfaceIndex)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(data, want.data) || ci.Length != want.size || iface.Name != want.iface || ci.Timestamp.Sub(began) != want.after {
				t.Errorf("packet %d: % x of %d on %q after %v", i, data, ci.Length, iface.Name, ci.Timestamp.Sub(began))
			}
		}
		if _, _, err := r.ReadPacketData(); !errors.Is(err, io.EOF) {
			t.Errorf("after the last: %v", err)
		}
	})
}

// stuck is a reader that takes nothing.
type stuck struct{ ctx context.Context }

func (s stuck) Write([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

func TestTapNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tap := New(Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := tap.Run(ctx, stuck{ctx})
			done <- err
		}()
		for range waiting + 10 {
			tap.Offer([]byte{0x45}, "x")
		}
		if n := tap.missed.Load(); n != 10 {
			t.Errorf("%d packets missed, want 10", n)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("a reader that fails: %v", err)
		}
	})
}

func TestTaps(t *testing.T) {
	var s Taps
	if s.Load() != nil {
		t.Fatal("taps before any was opened")
	}
	var remove []func()
	for range maxTaps {
		r, err := s.Add(New(Options{}))
		if err != nil {
			t.Fatal(err)
		}
		remove = append(remove, r)
	}
	if _, err := s.Add(New(Options{})); !errors.Is(err, ErrTooMany) {
		t.Errorf("one too many: %v", err)
	}
	for i, r := range remove {
		r()
		r() // twice is once
		if n := len(s.Load()); n != maxTaps-1-i {
			t.Errorf("%d taps left after %d were removed", n, i+1)
		}
	}
	if s.Load() != nil {
		t.Error("the packet path still pays")
	}
}
