package lan

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"patronus/netstack/packet"
)

func TestVNetHeaderRoundTrip(t *testing.T) {
	want := vnetHeader{flags: 3, gsoType: 4, hdrLen: 54, gsoSize: 1460, csumStart: 34, csumOffs: 16}
	var b [vnetLen]byte
	want.put(b[:])
	var got vnetHeader
	got.decode(b[:])
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestMetadata(t *testing.T) {
	const (
		needs = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
		valid = unix.VIRTIO_NET_HDR_F_DATA_VALID
		tcp4  = unix.VIRTIO_NET_HDR_GSO_TCPV4
		tcp6  = unix.VIRTIO_NET_HDR_GSO_TCPV6
		uso   = unix.VIRTIO_NET_HDR_GSO_UDP_L4
	)
	big := tcpPacket(segmentSpec{payload: 4000, options: make([]byte, 12)})
	big6 := tcpPacket(segmentSpec{v6: true, payload: 4000})
	datagram := udpPacket(segmentSpec{payload: 4000})
	fragment := udpPacket(segmentSpec{payload: 4000})
	fragment[6] |= 0x20
	binary.BigEndian.PutUint16(fragment[10:], 0)
	binary.BigEndian.PutUint16(fragment[10:], ^packet.Checksum(fragment[:20], 0))
	surplus := udpPacket(segmentSpec{payload: 4000})
	binary.BigEndian.PutUint16(surplus[24:], 3000) // UDP options (RFC 9868) follow
	want4 := packet.GSO{Size: 1448, HdrLen: 52, Proto: packet.TCP, NeedsCsum: true, CsumStart: 20, CsumOffset: 16}
	for name, c := range map[string]struct {
		b    []byte
		h    vnetHeader
		l2   int
		want packet.GSO
		why  Drop
		bad  bool
	}{
		"plain":                    {b: big},
		"finished elsewhere":       {b: big, h: vnetHeader{flags: valid}},
		"unfinished":               {b: big, h: vnetHeader{flags: needs, csumStart: 20, csumOffs: 16}, want: packet.GSO{NeedsCsum: true, CsumStart: 20, CsumOffset: 16}},
		"TCP":                      {b: big, h: vnetHeader{flags: needs, gsoType: tcp4, gsoSize: 1448, csumStart: 20, csumOffs: 16, hdrLen: 52}, want: want4},
		"behind Ethernet":          {b: big, l2: 14, h: vnetHeader{flags: needs, gsoType: tcp4, gsoSize: 1448, csumStart: 34, csumOffs: 16, hdrLen: 66}, want: want4},
		"ECN":                      {b: big, h: vnetHeader{flags: needs, gsoType: tcp4 | unix.VIRTIO_NET_HDR_GSO_ECN, gsoSize: 1448, csumStart: 20, csumOffs: 16}, want: want4},
		"header length a lie":      {b: big, h: vnetHeader{flags: needs, gsoType: tcp4, gsoSize: 1448, csumStart: 20, csumOffs: 16, hdrLen: 9000}, want: want4},
		"merged by hardware":       {b: big, h: vnetHeader{flags: valid, gsoType: tcp4, gsoSize: 1448}, want: want4},
		"IPv6":                     {b: big6, h: vnetHeader{flags: needs, gsoType: tcp6, gsoSize: 1000, csumStart: 40, csumOffs: 16}, want: packet.GSO{Size: 1000, HdrLen: 60, Proto: packet.TCP, NeedsCsum: true, CsumStart: 40, CsumOffset: 16}},
		"UDP":                      {b: datagram, h: vnetHeader{flags: needs, gsoType: uso, gsoSize: 1000, csumStart: 20, csumOffs: 6}, want: packet.GSO{Size: 1000, HdrLen: 28, Proto: packet.UDP, NeedsCsum: true, CsumStart: 20, CsumOffset: 6}},
		"one segment":              {b: big, h: vnetHeader{flags: needs, gsoType: tcp4, gsoSize: 4000, csumStart: 20, csumOffs: 16}, want: packet.GSO{NeedsCsum: true, CsumStart: 20, CsumOffset: 16}},
		"not checked":              {b: big, h: vnetHeader{gsoType: tcp4, gsoSize: 1448}, bad: true, why: DropUnverified},
		"UFO":                      {b: datagram, h: vnetHeader{flags: needs, gsoType: unix.VIRTIO_NET_HDR_GSO_UDP, gsoSize: 1000, csumStart: 20, csumOffs: 6}, bad: true, why: DropUnknownGSO},
		"unknown kind":             {b: big, h: vnetHeader{gsoType: 77}, bad: true, why: DropUnknownGSO},
		"other family":             {b: big6, h: vnetHeader{flags: needs, gsoType: tcp4, gsoSize: 1448, csumStart: 40, csumOffs: 16}, bad: true},
		"other protocol":           {b: datagram, h: vnetHeader{flags: needs, gsoType: tcp4, gsoSize: 1448, csumStart: 20, csumOffs: 6}, bad: true},
		"UDP surplus":              {b: surplus, h: vnetHeader{flags: needs, gsoType: uso, gsoSize: 1000, csumStart: 20, csumOffs: 6}, bad: true},
		"no size":                  {b: big, h: vnetHeader{flags: needs, gsoType: tcp4, csumStart: 20, csumOffs: 16}, bad: true},
		"fragment":                 {b: fragment, h: vnetHeader{flags: needs, gsoType: uso, gsoSize: 1000, csumStart: 20, csumOffs: 6}, bad: true},
		"checksum in the header":   {b: big, h: vnetHeader{flags: needs, csumStart: 19, csumOffs: 16}, bad: true},
		"checksum behind the end":  {b: big, h: vnetHeader{flags: needs, csumStart: 4051, csumOffs: 0}, bad: true},
		"checksum before Ethernet": {b: big, l2: 14, h: vnetHeader{flags: needs, csumStart: 3, csumOffs: 16}, bad: true},
		"checksum elsewhere":       {b: big, h: vnetHeader{flags: needs, gsoType: tcp4, gsoSize: 1448, csumStart: 24, csumOffs: 16}, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := packet.Get(len(c.b))
			defer b.Release()
			copy(b.Bytes, c.b)
			why, ok := c.h.metadata(b, c.l2)
			if ok == c.bad || why != c.why {
				t.Fatalf("%v, %v", why, ok)
			}
			if ok && b.GSO != c.want {
				t.Fatalf("%+v, want %+v", b.GSO, c.want)
			}
			if !ok || c.want == (packet.GSO{}) {
				return
			}
			// What goes out by the other port is what came in.
			h := vnetFor(&b.GSO, b.Bytes[0]>>4, c.l2)
			again := packet.Get(len(b.Bytes))
			defer again.Release()
			copy(again.Bytes, b.Bytes)
			if _, ok := h.metadata(again, c.l2); !ok || again.GSO != b.GSO {
				t.Fatalf("%+v becomes %+v", b.GSO, again.GSO)
			}
		})
	}
}

// A packet that hardware merged is cut into segments with right checksums.
func TestMergedByHardware(t *testing.T) {
	b := packet.Get(4040)
	defer b.Release()
	copy(b.Bytes, tcpPacket(segmentSpec{payload: 4000}))
	h := vnetHeader{flags: unix.VIRTIO_NET_HDR_F_DATA_VALID, gsoType: unix.VIRTIO_NET_HDR_GSO_TCPV4, gsoSize: 1000}
	if _, ok := h.metadata(b, 0); !ok {
		t.Fatal("refused")
	}
	var seg packet.Segmenter
	seg.Reset(b)
	for range 4 {
		p := make([]byte, seg.Len())
		if _, ok := seg.Next(p); !ok {
			t.Fatal("too few segments")
		}
		if o := outOf(p); !checksumOK(&o) {
			t.Error("wrong checksum")
		}
	}
}

func TestSegments(t *testing.T) {
	g := packet.GSO{Size: 1000, HdrLen: 40}
	for size, want := range map[int]int{40: 1, 41: 1, 1040: 1, 1041: 2, 4040: 4, 4041: 5} {
		if got := segments(&g, size); got != want {
			t.Errorf("%d bytes: %d segments, want %d", size, got, want)
		}
	}
	if wireSize(&g, 4040) != 1040 || wireSize(&g, 500) != 500 || wireSize(&packet.GSO{}, 4040) != 4040 {
		t.Error("wire size")
	}
}

func TestDropNames(t *testing.T) {
	seen := map[string]bool{"unknown": true}
	for d := range NumDrops {
		if s := d.String(); seen[s] {
			t.Errorf("%d: %q", d, s)
		} else {
			seen[s] = true
		}
	}
}
