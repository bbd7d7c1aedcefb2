package netstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"

	"patronus/netstack/capture"
	"patronus/netstack/packet"
)

// captured runs a capture around f, and lists what it wrote as "interface:
// destination".
func (r *rig) captured(o CaptureOptions, f func()) []string {
	r.tb.Helper()
	var file bytes.Buffer
	ctx, cancel := context.WithCancel(r.tb.Context())
	done := make(chan error)
	go func() {
		_, err := r.Capture(ctx, o, &file)
		done <- err
	}()
	for r.taps.Load() == nil {
		select {
		case err := <-done:
			r.tb.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	f()
	for _, t := range r.taps.Load() {
		for t.Waiting() > 0 {
			<-time.After(time.Millisecond)
		}
	}
	cancel()
	if err := <-done; err != nil {
		r.tb.Fatal(err)
	}
	if r.taps.Load() != nil {
		r.tb.Error("the tap stays open")
	}
	in, err := pcapgo.NewNgReader(&file, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		r.tb.Fatal(err)
	}
	var out []string
	for {
		data, ci, err := in.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			r.tb.Fatal(err)
		}
		iface, err := in.Interface(ci.InterfaceIndex)
		if err != nil {
			r.tb.Fatal(err)
		}
		var p packet.Info
		if fault := packet.Decode(data, &p); fault != 0 {
			r.tb.Fatalf("captured % x: %v", data, fault)
		}
		out = append(out, fmt.Sprintf("%s: %v ttl %d", iface.Name, p.Key.Dst.Netip(), p.TTL))
	}
}

func TestCapture(t *testing.T) {
	p := newPlan("hq", "east")
	r := newRig(t, p, p.config(t, "hq", twoPorts))
	over := r.byID("hq.lte0~east.wan0")
	traffic := func() {
		r.fromLAN("lan0", datagram(host4, "192.0.2.9", 4000, 5000, 10).build(t))
		r.fromLAN("lan0", echo(host4, "10.1.0.1", 7, 10).build(t))
		r.fromLAN("lan0", datagram(remote4, host4, 4000, 5000, 10).build(t))
		r.fromLAN("lan0", datagram(host4, laptop4, 4000, 5000, 10).build(t))
		r.overPath(over, echo(remote4, "10.1.0.1", 7, 10).build(t))
		r.overPath(over, datagram(remote4, "224.0.0.5", 4000, 5000, 10).build(t))
	}
	lan := []string{
		"to_wan rejected no-route: 192.0.2.9 ttl 64",
		"to_wan host: 10.1.0.1 ttl 64",
		"to_wan dropped spoofed: 10.1.0.10 ttl 64",
		"to_wan device: 10.1.200.2 ttl 64",
	}
	wan := []string{
		"from_wan host: 10.1.0.1 ttl 64",
		"from_wan dropped martian: 224.0.0.5 ttl 64",
	}
	for _, tc := range []struct {
		o    CaptureOptions
		want []string
	}{
		{CaptureOptions{}, slices.Concat(lan, wan)},
		{CaptureOptions{Point: "lan"}, lan},
		{CaptureOptions{Point: "wan"}, wan},
		{CaptureOptions{Point: "lte0"}, wan},
		{CaptureOptions{Point: "wan0"}, nil},
		{CaptureOptions{Point: "hq.lte0~east.wan0"}, wan},
		{CaptureOptions{Filter: "icmp"}, []string{lan[1], wan[0]}},
		{CaptureOptions{Filter: "dst net 192.0.2.0/24"}, lan[:1]},
	} {
		if got := r.captured(tc.o, traffic); !slices.Equal(got, tc.want) {
			t.Errorf("%+v:\n%q\nwant\n%q", tc.o, got, tc.want)
		}
	}
	for _, o := range []CaptureOptions{{Point: "nowhere"}, {Filter: "host me"}} {
		if _, err := r.Capture(t.Context(), o, io.Discard); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
	if res, err := r.Capture(t.Context(), CaptureOptions{Duration: time.Millisecond}, io.Discard); err != nil || res != (capture.Result{}) {
		t.Errorf("nothing passed: %+v, %v", res, err)
	}
}
