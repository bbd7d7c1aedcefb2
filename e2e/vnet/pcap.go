package vnet

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

const snapLen = 65535

// tap is a capture in progress.
type tap struct {
	w    *pcapgo.Writer
	nics []*NIC
	err  error
}

// Capture writes datagrams to w as a pcap file of raw IP packets, whose headers
// are made up around each datagram, with the network's times. With NICs it is
// what those sent and received; without, each datagram once, as it was sent. The
// returned function ends it and reports the first error of w, which is written
// to while the network stands still.
func (n *Network) Capture(w io.Writer, nics ...*NIC) (stop func() error, err error) {
	pw, err := newPcap(w)
	if err != nil {
		return nil, err
	}
	t := &tap{w: pw, nics: nics}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.taps = append(n.taps, t)
	return func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.taps = slices.DeleteFunc(n.taps, func(o *tap) bool { return o == t })
		return t.err
	}, nil
}

// WritePcap writes the datagrams that the network remembers, as [Network.Capture]
// does without NICs.
func (n *Network) WritePcap(w io.Writer) error {
	pw, err := newPcap(w)
	if err != nil {
		return err
	}
	for _, r := range n.Records() {
		if err := writePacket(pw, r.At, r.Src, r.Dst, r.data); err != nil {
			return err
		}
	}
	return nil
}

func newPcap(w io.Writer) (*pcapgo.Writer, error) {
	pw := pcapgo.NewWriterNanos(w)
	if err := pw.WriteFileHeader(snapLen, layers.LinkTypeRaw); err != nil {
		return nil, fmt.Errorf("pcap header: %w", err)
	}
	return pw, nil
}

// tap shows a datagram at a NIC to the captures. The caller holds n.mu.
func (n *Network) tap(nic *NIC, dir Direction, d *datagram, now time.Time) {
	for _, t := range n.taps {
		first := dir == Outgoing && d.rec.From == nic.name
		if t.err == nil && (len(t.nics) == 0 && first || slices.Contains(t.nics, nic)) {
			t.err = writePacket(t.w, now, d.src, d.dst, d.data)
		}
	}
}

func writePacket(w *pcapgo.Writer, at time.Time, src, dst netip.AddrPort, payload []byte) error {
	udp := &layers.UDP{SrcPort: layers.UDPPort(src.Port()), DstPort: layers.UDPPort(dst.Port())}
	var ip interface {
		gopacket.SerializableLayer
		gopacket.NetworkLayer
	}
	if dst.Addr().Is4() {
		ip = &layers.IPv4{
			Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, Flags: layers.IPv4DontFragment,
			SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice(),
		}
	} else {
		ip = &layers.IPv6{
			Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP,
			SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice(),
		}
	}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		return fmt.Errorf("pcap: %w", err)
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, ip, udp, gopacket.Payload(payload)); err != nil {
		return fmt.Errorf("pcap: %w", err)
	}
	b := buf.Bytes()
	b = b[:min(len(b), snapLen)]
	info := gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(b), Length: len(buf.Bytes())}
	if err := w.WritePacket(info, b); err != nil {
		return fmt.Errorf("pcap: %w", err)
	}
	return nil
}
