package wire

import (
	"encoding/binary"
	"testing"
	"unsafe"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"
)

// build serialises layers; checksums are complete unless partial.
func build(t testing.TB, payload int, ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, append(ls, gopacket.Payload(make([]byte, payload)))...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func tcpFrame(t testing.TB, payload int, tagged bool) []byte {
	eth := &layers.Ethernet{SrcMAC: []byte{2, 0, 0, 0, 0, 1}, DstMAC: []byte{2, 0, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeIPv4}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: []byte{10, 0, 0, 1}, DstIP: []byte{10, 0, 0, 2}}
	tcp := &layers.TCP{SrcPort: 1, DstPort: 2, Seq: 1000, ACK: true, PSH: true, Window: 100}
	if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	if tagged {
		eth.EthernetType = layers.EthernetTypeDot1Q
		return build(t, payload, eth, &layers.Dot1Q{VLANIdentifier: 9, Type: layers.EthernetTypeIPv4}, ip, tcp)
	}
	return build(t, payload, eth, ip, tcp)
}

// whole decodes a frame and checks its TCP checksum by summing over it.
func whole(t *testing.T, f []byte) *layers.TCP {
	t.Helper()
	p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)
	tcp, _ := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if tcp == nil {
		t.Fatalf("no TCP in %v", p)
	}
	ip := p.NetworkLayer().(*layers.IPv4)
	if int(ip.Length) != len(ip.Contents)+len(ip.Payload) {
		t.Errorf("IP length %d of %d", ip.Length, len(ip.Contents)+len(ip.Payload))
	}
	sum := uint32(6) + uint32(len(ip.Payload))
	for _, b := range [][]byte{ip.SrcIP.To4(), ip.DstIP.To4(), append(ip.Payload[:len(ip.Payload):len(ip.Payload)], 0)} {
		for i := 0; i+1 < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	if sum != 0xffff {
		t.Errorf("TCP checksum is wrong: %04x", sum)
	}
	return tcp
}

func TestCutter(t *testing.T) {
	const mss = 1448
	for _, tagged := range []bool{false, true} {
		link := etherLen
		if tagged {
			link += vlanLen
		}
		super := tcpFrame(t, 10*mss+5, tagged)
		h := vnetHdr{
			flags: needsCsum, gsoType: gsoTCPv4, gsoSize: mss, hdrLen: uint16(link + 40),
			csumStart: uint16(link + 20), csumOffset: 16,
		}
		var c cutter
		for range 3 { // memory is used again
			c.reset()
			if !c.add(super, h) || len(c.frames) != 11 {
				t.Fatalf("tagged %v: cut into %d", tagged, len(c.frames))
			}
			for i, f := range c.frames {
				if tcp := whole(t, f); tcp.Seq != uint32(1000+i*mss) || tcp.PSH != (i == 10) {
					t.Errorf("segment %d: seq %d, push %v", i, tcp.Seq, tcp.PSH)
				}
			}
		}
	}
}

func TestCutterFinishesChecksum(t *testing.T) {
	f := tcpFrame(t, 7, false)
	// What the kernel leaves: the sum of the pseudo header.
	sum := uint32(0x0a00+1) + uint32(0x0a00+2) + 6 + uint32(len(f)-etherLen-20)
	binary.BigEndian.PutUint16(f[etherLen+20+16:], uint16(sum))
	var c cutter
	if !c.add(f, vnetHdr{flags: needsCsum, csumStart: etherLen + 20, csumOffset: 16}) {
		t.Fatal("refused")
	}
	whole(t, c.frames[0])
}

func TestCutterRefuses(t *testing.T) {
	var c cutter
	for _, bad := range []struct {
		frame []byte
		h     vnetHdr
	}{
		{make([]byte, 60), vnetHdr{flags: needsCsum, csumStart: 59, csumOffset: 16}},
		{make([]byte, 60), vnetHdr{gsoType: gsoTCPv4, gsoSize: 100}},
		{tcpFrame(t, 100, false), vnetHdr{gsoType: 77, gsoSize: 100}},
		{tcpFrame(t, 100, false), vnetHdr{gsoType: gsoUDP, gsoSize: 10}},
	} {
		if c.add(bad.frame, bad.h) {
			t.Errorf("took %+v", bad.h)
		}
	}
	if len(c.frames) != 0 {
		t.Errorf("%d frames", len(c.frames))
	}
}

func TestTakePutsTheTagBack(t *testing.T) {
	frame := tcpFrame(t, 20, false)
	b := append(make([]byte, vlanLen+vnetHeader), frame...)
	aux := unix.TpacketAuxdata{Status: unix.TP_STATUS_VLAN_VALID | unix.TP_STATUS_VLAN_TPID_VALID, Vlan_tci: 9, Vlan_tpid: 0x8100}
	oob := make([]byte, unix.CmsgSpace(int(unsafe.Sizeof(aux))))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
	h.Level, h.Type = unix.SOL_PACKET, unix.PACKET_AUXDATA
	h.SetLen(unix.CmsgLen(int(unsafe.Sizeof(aux))))
	*(*unix.TpacketAuxdata)(unsafe.Pointer(&oob[unix.CmsgLen(0)])) = aux
	var e end
	e.take(b, oob)
	if len(e.in.frames) != 1 || string(e.in.frames[0]) != string(tcpFrame(t, 20, true)) {
		t.Fatalf("got % x", e.in.frames)
	}
	e.take(b[:5], nil) // too short to be anything
	if len(e.in.frames) != 1 {
		t.Error("took a fragment of a message")
	}
}

func FuzzTake(f *testing.F) {
	f.Add(append(make([]byte, vlanLen+vnetHeader), tcpFrame(f, 3000, false)...), []byte{})
	f.Add([]byte{0, 0, 0, 0, 1, 1, 54, 0, 100, 0, 34, 0, 16, 0}, make([]byte, 36))
	f.Fuzz(func(t *testing.T, b, oob []byte) {
		var e end
		e.take(b, oob)
		for _, fr := range e.in.frames {
			if len(fr) > len(b)+vlanLen {
				t.Fatalf("%d bytes became a frame of %d", len(b), len(fr))
			}
		}
	})
}
