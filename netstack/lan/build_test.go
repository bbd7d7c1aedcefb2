package lan

import (
	"encoding/binary"
	"testing"
	"time"

	"patronus/netstack/packet"
)

// segmentSpec says what tcpPacket and udpPacket build; zero fields get
// sensible values.
type segmentSpec struct {
	v6              bool
	tos, ttl, flags uint8
	id              uint16
	df              bool
	seq, ack        uint32
	window          uint16
	options         []byte // of TCP, a multiple of 4 bytes
	srcPort         uint16
	payload         int // bytes
	fill            byte
}

func (s segmentSpec) header(proto uint8, length int) []byte {
	if s.ttl == 0 {
		s.ttl = 64
	}
	if s.v6 {
		b := make([]byte, ipv6Len, ipv6Len+length)
		binary.BigEndian.PutUint32(b, 6<<28|uint32(s.tos)<<20|0x12345)
		binary.BigEndian.PutUint16(b[4:], uint16(length))
		b[6], b[7] = proto, s.ttl
		copy(b[8:], []byte{0xfd, 0x77, 0, 1, 15: 1})
		copy(b[24:], []byte{0xfd, 0x77, 0, 2, 15: 1})
		return b
	}
	b := make([]byte, ipv4Len, ipv4Len+length)
	b[0], b[1], b[8], b[9] = 0x45, s.tos, s.ttl, proto
	binary.BigEndian.PutUint16(b[2:], uint16(ipv4Len+length))
	binary.BigEndian.PutUint16(b[4:], s.id)
	if s.df {
		b[6] = 0x40
	}
	copy(b[12:], []byte{10, 77, 1, 1, 10, 77, 2, 1})
	binary.BigEndian.PutUint16(b[10:], ^packet.Checksum(b[:ipv4Len], 0))
	return b
}

func (s segmentSpec) ports() (src, dst uint16) {
	if s.srcPort == 0 {
		s.srcPort = 40000
	}
	return s.srcPort, 443
}

func (s segmentSpec) body(b []byte) []byte {
	for i := range s.payload {
		b = append(b, s.fill+byte(i))
	}
	return b
}

// tcpPacket builds a complete segment.
func tcpPacket(s segmentSpec) []byte {
	if s.flags == 0 {
		s.flags = tcpACK
	}
	if s.window == 0 {
		s.window = 500
	}
	n := tcpMinLen + len(s.options)
	b := s.header(packet.TCP, n+s.payload)
	l4 := len(b)
	h := make([]byte, n)
	src, dst := s.ports()
	binary.BigEndian.PutUint16(h, src)
	binary.BigEndian.PutUint16(h[2:], dst)
	binary.BigEndian.PutUint32(h[4:], s.seq)
	binary.BigEndian.PutUint32(h[8:], s.ack)
	h[12], h[13] = uint8(n/4)<<4, s.flags
	binary.BigEndian.PutUint16(h[14:], s.window)
	copy(h[20:], s.options)
	b = s.body(append(b, h...))
	return withChecksum(b, l4, tcpCsum)
}

// udpPacket builds a complete datagram.
func udpPacket(s segmentSpec) []byte {
	b := s.header(packet.UDP, udpLen+s.payload)
	l4 := len(b)
	h := make([]byte, udpLen)
	src, dst := s.ports()
	binary.BigEndian.PutUint16(h, src)
	binary.BigEndian.PutUint16(h[2:], dst)
	binary.BigEndian.PutUint16(h[4:], uint16(udpLen+s.payload))
	b = s.body(append(b, h...))
	return withChecksum(b, l4, udpCsum)
}

func withChecksum(b []byte, l4, offset int) []byte {
	in := decoded(b)
	sum := ^packet.Checksum(b[l4:], pseudoSum(b, in))
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[l4+offset:], sum)
	return b
}

// decoded decodes what the test knows to be right.
func decoded(b []byte) *packet.Info {
	in := new(packet.Info)
	if f := packet.Decode(b, in); f != packet.OK {
		panic("test packet: " + f.String())
	}
	return in
}

func outOf(b []byte) Out { return Out{Bytes: b, Info: decoded(b)} }

// waitFor polls until ok holds.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the condition did not come true in 10 s")
		}
	}
}
