package lan

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"patronus/netstack/packet"
)

var ownMAC = [6]byte{2, 0, 0, 0, 0, 7}

var stranger = [6]byte{2, 0, 0, 0, 0, 9}

// ethernet puts a header before an IP packet.
func ethernet(dst [6]byte, etherType uint16, body []byte) []byte {
	src := stranger
	f := make([]byte, ethLen, ethLen+len(body))
	putEth(f, &dst, &src, 0, etherType)
	return append(f, body...)
}

func TestClassify(t *testing.T) {
	v4, v6 := tcpPacket(segmentSpec{payload: 10}), tcpPacket(segmentSpec{v6: true, payload: 10})
	group := [6]byte{0x33, 0x33, 0, 0, 0, 1}
	other := [6]byte{2, 0, 0, 0, 0, 8}
	a, b := netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::2")
	advert := ndpFrame(136, other, a, b, a)
	copy(advert, ownMAC[:])
	echo := ndpFrame(128, other, a, b, a)
	copy(echo, ownMAC[:])
	for name, c := range map[string]struct {
		f    []byte
		want fate
		why  Drop
	}{
		"IPv4":               {ethernet(ownMAC, ethIPv4, v4), fateIP, 0},
		"IPv6":               {ethernet(ownMAC, ethIPv6, v6), fateIP, 0},
		"echo":               {echo, fateIP, 0},
		"multicast":          {ethernet(group, ethIPv6, v6), fateControl, 0},
		"broadcast":          {ethernet([6]byte{255, 255, 255, 255, 255, 255}, ethIPv4, v4), fateControl, 0},
		"ARP request":        {arpFrame(1, other, netip.MustParseAddr("10.0.0.1"), [6]byte{}, netip.MustParseAddr("10.0.0.2")), fateControl, 0},
		"ARP answer":         {arpFrame(2, other, netip.MustParseAddr("10.0.0.1"), ownMAC, netip.MustParseAddr("10.0.0.2")), fateControl, 0},
		"solicitation":       {ndpFrame(135, other, a, b, b), fateControl, 0},
		"advertisement":      {advert, fateControl, 0},
		"other station":      {ethernet(other, ethIPv4, v4), fateDrop, DropNotOurs},
		"our own":            {arpFrame(1, ownMAC, netip.MustParseAddr("10.0.0.1"), [6]byte{}, netip.MustParseAddr("10.0.0.2")), fateDrop, DropLooped},
		"LLDP":               {ethernet(ownMAC, 0x88cc, v4), fateDrop, DropMalformed},
		"a second tag":       {ethernet(ownMAC, ethVLAN, v4), fateDrop, DropMalformed},
		"short":              {ethernet(ownMAC, ethIPv4, v4)[:13], fateDrop, DropMalformed},
		"short IPv4":         {ethernet(ownMAC, ethIPv4, v4[:19]), fateDrop, DropMalformed},
		"short IPv6":         {ethernet(ownMAC, ethIPv6, v6[:39]), fateDrop, DropMalformed},
		"nothing behind IP6": {ethernet(ownMAC, ethIPv6, advert[ethLen:ethLen+ipv6Len]), fateIP, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got, why := classify(c.f, &ownMAC); got != c.want || why != c.why {
				t.Errorf("%v, %v", got, why)
			}
		})
	}
}

// The kernel's filter lets through what classify wants and nothing else.
func TestFilterAgreesWithClassify(t *testing.T) {
	raw, err := wanted(ownMAC, 0)
	if err != nil {
		t.Fatal(err)
	}
	// The test machine has no VLAN extension: there is no tag.
	prog, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("does not disassemble")
	}
	for i, ins := range prog {
		if _, ok := ins.(bpf.LoadExtension); ok {
			prog[i] = bpf.LoadConstant{Dst: bpf.RegA, Val: 0}
		}
	}
	vm, err := bpf.NewVM(prog)
	if err != nil {
		t.Fatal(err)
	}
	v4 := tcpPacket(segmentSpec{payload: 10})
	near := ownMAC
	near[5]++
	for _, dst := range [][6]byte{ownMAC, near, {3, 0, 0, 0, 0, 7}, {255, 255, 255, 255, 255, 255}, {2, 0, 0, 1, 0, 7}} {
		for _, kind := range []uint16{ethIPv4, ethIPv6, ethARP, ethVLAN, 0x88cc} {
			f := ethernet(dst, kind, v4)
			fate, _ := classify(f, &ownMAC)
			n, err := vm.Run(f)
			if err != nil {
				t.Fatal(err)
			}
			if (fate != fateDrop) != (n > 0) {
				t.Errorf("%x, %#x: filter says %d, classify %v", dst, kind, n, fate)
			}
		}
	}
}

func TestAnnounced(t *testing.T) {
	mac := [6]byte{2, 1, 2, 3, 4, 5}
	a4, a6 := netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00::5")
	noOption := ndpFrame(136, mac, a6, a6, a6)
	noOption[ethLen+ipv6Len+24] = 14
	routed := ndpFrame(136, mac, a6, a6, a6)
	routed[ethLen+7] = 254
	for name, c := range map[string]struct {
		f    []byte
		addr netip.Addr
		ok   bool
	}{
		"ARP":           {arpFrame(2, mac, a4, ownMAC, a4), a4, true},
		"NA":            {ndpFrame(136, mac, a6, a6, a6), a6, true},
		"NS":            {ndpFrame(135, mac, a6, a6, a6), a6, false},
		"without":       {noOption, a6, false},
		"from far away": {routed, a6, false},
		"short ARP":     {arpFrame(2, mac, a4, ownMAC, a4)[:ethLen+27], a4, false},
	} {
		addr, got, ok := announced(c.f)
		if ok != c.ok || ok && (addr.Netip() != c.addr || got != mac) {
			t.Errorf("%s: %v %x %v", name, addr.Netip(), got, ok)
		}
	}
}

func TestGroupMAC(t *testing.T) {
	for in, want := range map[string][6]byte{
		"224.0.0.251":     {0x01, 0x00, 0x5e, 0, 0, 251},
		"239.129.2.3":     {0x01, 0x00, 0x5e, 1, 2, 3},
		"255.255.255.255": {255, 255, 255, 255, 255, 255},
		"ff02::1:ff00:7":  {0x33, 0x33, 0xff, 0, 0, 7},
	} {
		a := packet.AddrFrom(netip.MustParseAddr(in))
		if got, ok := groupMAC(&a); !ok || got != want {
			t.Errorf("%s: %x, %v", in, got, ok)
		}
	}
	for _, in := range []string{"10.0.0.255", "fd00::1", "223.255.255.255"} {
		a := packet.AddrFrom(netip.MustParseAddr(in))
		if _, ok := groupMAC(&a); ok {
			t.Errorf("%s is not a group", in)
		}
	}
}

func TestFinishChecksum(t *testing.T) {
	want := udpPacket(segmentSpec{payload: 31})
	f := ethernet([6]byte{255, 255, 255, 255, 255, 255}, ethIPv4, want)
	in := decoded(want)
	binary.BigEndian.PutUint16(f[ethLen+int(in.L4)+udpCsum:], fold(pseudoSum(want, in)))
	if !finishChecksum(f, ethLen+int(in.L4), udpCsum) || string(f[ethLen:]) != string(want) {
		t.Errorf("got %x", f)
	}
	if finishChecksum(f, len(f)-1, 0) || finishChecksum(f, 13, 0) {
		t.Error("accepted a checksum outside the packet")
	}
}

// FuzzFrame feeds a socket's view of a frame, vnet header first, to everything
// that parses one.
func FuzzFrame(f *testing.F) {
	add := func(h vnetHeader, frame []byte) {
		b := make([]byte, vnetLen, vnetLen+len(frame))
		h.put(b)
		f.Add(append(b, frame...))
	}
	a, b := netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::2")
	add(vnetHeader{}, ethernet(ownMAC, ethIPv4, tcpPacket(segmentSpec{payload: 10})))
	add(vnetHeader{flags: 1, gsoType: 1, gsoSize: 1000, csumStart: 34, csumOffs: 16}, ethernet(ownMAC, ethIPv4, tcpPacket(segmentSpec{payload: 4000})))
	add(vnetHeader{flags: 1, gsoType: 4, gsoSize: 1000, csumStart: 54, csumOffs: 16}, ethernet(ownMAC, ethIPv6, tcpPacket(segmentSpec{v6: true, payload: 4000})))
	add(vnetHeader{flags: 1, gsoType: 5, gsoSize: 100, csumStart: 34, csumOffs: 6}, ethernet(ownMAC, ethIPv4, udpPacket(segmentSpec{payload: 400})))
	add(vnetHeader{flags: 2, gsoType: 0x81, gsoSize: 100}, ethernet(ownMAC, ethIPv4, tcpPacket(segmentSpec{payload: 400})))
	add(vnetHeader{}, arpFrame(1, stranger, netip.MustParseAddr("10.0.0.1"), [6]byte{}, netip.MustParseAddr("10.0.0.2")))
	add(vnetHeader{flags: 1, csumStart: 54, csumOffs: 2}, ndpFrame(136, stranger, a, b, a))
	add(vnetHeader{}, ndpFrame(135, stranger, a, b, b))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < lead || len(data)-lead > maxPacket {
			return
		}
		var control int
		p := &Packet{mac: ownMAC, control: func([]byte) { control++ }}
		p.neigh = newNeighbours(nil, func() int64 { return 0 }, &p.count, nil)
		p.rd.port = p
		p.rd.slots[0] = packet.Get(maxPacket)
		raw := p.rd.slots[0].Headroom(lead)[:len(data)]
		copy(raw, data)
		buf := p.rd.frame(0, raw)
		drops := uint64(0)
		for _, n := range p.count.snapshot().Drops {
			drops += n
		}
		if (buf != nil) == (drops+uint64(control) > 0) {
			t.Fatalf("buffer %v, %d dropped, %d to control", buf != nil, drops, control)
		}
		if buf == nil {
			return
		}
		if n := segments(&buf.GSO, len(buf.Bytes)); n < 1 || buf.GSO.Size != 0 && n != buf.Segments() {
			t.Fatalf("%d segments, %+v", n, buf.GSO)
		}
		var seg packet.Segmenter
		seg.Reset(buf)
		out := make([]byte, maxPacket)
		for {
			n, ok := seg.Next(out)
			if !ok {
				break
			}
			// Plain and merged ways out must survive whatever decodes.
			o := Out{Bytes: out[:n], Info: new(packet.Info)}
			if packet.Decode(o.Bytes, o.Info) == packet.OK {
				var m merger
				m.plan([]Out{o, o}, true, true)
			}
		}
		h := vnetFor(&buf.GSO, buf.Bytes[0]>>4, 0)
		if buf.GSO.Size != 0 && h.gsoType == unix.VIRTIO_NET_HDR_GSO_NONE {
			t.Fatal("a superpacket leaves as none")
		}
		buf.Release()
	})
}
