package vnet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// packets reads a pcap back as "time src:port>dst:port payload".
func packets(t *testing.T, r io.Reader, start time.Time) (lines []string) {
	t.Helper()
	p, err := pcapgo.NewReader(r)
	if err != nil || p.LinkType() != layers.LinkTypeRaw {
		t.Fatalf("%v, link type %v", err, p.LinkType())
	}
	for {
		b, info, err := p.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		first := layers.LayerTypeIPv4
		if b[0]>>4 == 6 {
			first = layers.LayerTypeIPv6
		}
		pkt := gopacket.NewPacket(b, first, gopacket.Default)
		udp, _ := pkt.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if udp == nil {
			t.Fatalf("no UDP in %v", pkt)
		}
		f := pkt.NetworkLayer().NetworkFlow()
		lines = append(lines, fmt.Sprintf("%v %v:%d>%v:%d %s", info.Timestamp.Sub(start), f.Src(), udp.SrcPort, f.Dst(), udp.DstPort, udp.Payload))
	}
}

func TestCapture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newNAT(t, RouterOptions{Kind: FullCone, PreservePorts: true}, false)
		start := time.Now()
		x.inside.NIC().Link().Set(Impairment{Delay: 5 * time.Millisecond})
		var all, one bytes.Buffer
		stopAll, err := x.Capture(&all)
		if err != nil {
			t.Fatal(err)
		}
		stopOne, err := x.Capture(&one, x.peer[0].NIC())
		if err != nil {
			t.Fatal(err)
		}
		x.inside.send(t, x.at[0], "there")
		x.peer[0].drain(time.Second)
		x.peer[0].send(t, addrPort("203.0.113.1:1000"), "back")
		x.inside.drain(time.Second)
		if err := errors.Join(stopAll(), stopOne()); err != nil {
			t.Fatal(err)
		}
		x.inside.send(t, x.at[0], "unseen")
		want := "[0s 10.0.0.2:1000>198.51.100.1:7 there 1s 198.51.100.1:7>203.0.113.1:1000 back]"
		if got := fmt.Sprint(packets(t, &all, start)); got != want {
			t.Errorf("everything: %s", got)
		}
		want = "[5ms 203.0.113.1:1000>198.51.100.1:7 there 1s 198.51.100.1:7>203.0.113.1:1000 back]"
		if got := fmt.Sprint(packets(t, &one, start)); got != want {
			t.Errorf("one NIC: %s", got)
		}
	})
}

func TestSequence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newPair(t)
		n.a.Link().Set(Impairment{Delay: 10 * time.Millisecond})
		a, b := listen(t, n.Network, n.a, 1000), listen(t, n.Network, n.b, 2000)
		n.AddRule(n.b, Rule{Message: Initiation, Occurrences: []int{1}})
		message := func(typ byte, size int) string {
			return string(append([]byte{typ}, make([]byte, size-1)...))
		}
		to := addrPort("198.51.100.1:2000")
		a.send(t, to, message(1, 148))
		b.drain(time.Second)
		a.send(t, to, message(1, 148))
		b.drain(time.Second)
		a.send(t, to, message(4, 100), message(4, 200), message(4, 300))
		b.drain(5 * time.Millisecond)
		var got strings.Builder
		if err := n.WriteSequence(&got, 0); err != nil {
			t.Fatal(err)
		}
		want := `sequenceDiagram
    participant p0 as hq.wan0
    participant p1 as east.lte0
    p0-xp1: 0.000 ms initiation 148 B DROPPED, rule
    p0->>p1: 1000.000 ms initiation 148 B +10.000 ms
    p0--)p1: 2000.000 ms transport 100 B (3 times until 2000.000 ms) in flight
`
		if got.String() != want {
			t.Errorf("got\n%swant\n%s", &got, want)
		}
		got.Reset()
		if err := n.WriteSequence(&got, 1); err != nil || strings.Count(got.String(), "\n") != 4 {
			t.Errorf("the last one: %v\n%s", err, &got)
		}
	})
}

// brokenTest fails, and keeps what it is told.
type brokenTest struct {
	*testing.T
	failed bool
	ends   []func()
	log    strings.Builder
}

func (b *brokenTest) Failed() bool     { return b.failed }
func (b *brokenTest) Cleanup(f func()) { b.ends = append(b.ends, f) }
func (b *brokenTest) Logf(format string, args ...any) {
	fmt.Fprintf(&b.log, format+"\n", args...)
}

func TestOnFailure(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		for _, failed := range []bool{false, true} {
			n := newPair(t)
			a := listen(t, n.Network, n.a, 1000)
			fake := &brokenTest{T: t, failed: failed}
			OnFailure(fake, n.Network)
			a.send(t, addrPort("[2001:db8::2]:9"), "lost")
			for _, end := range fake.ends {
				end()
			}
			files, err := filepath.Glob(filepath.Join(os.TempDir(), "vnet-failure-*", "*"))
			if err != nil || failed != (len(files) == 2) || failed != (fake.log.Len() > 0) {
				t.Fatalf("failed %v: %v, %v, said %q", failed, files, err, &fake.log)
			}
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err != nil || len(b) < 60 || !strings.Contains(fake.log.String(), f) {
					t.Errorf("%s: %d bytes, %v, said %q", f, len(b), err, &fake.log)
				}
			}
		}
	})
}

func TestRingForgetsTheOldest(t *testing.T) {
	r := ring{max: 3}
	for i := range 5 {
		r.add(Record{Size: i})
		var sizes []int
		for _, rec := range r.all() {
			sizes = append(sizes, rec.Size)
		}
		if len(sizes) != min(i+1, 3) || sizes[len(sizes)-1] != i || sizes[0] != max(0, i-2) {
			t.Errorf("after %d: %v", i+1, sizes)
		}
	}
}
