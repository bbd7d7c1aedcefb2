package packet

import "encoding/binary"

const (
	tcpSeq, tcpOffset, tcpFlags, tcpCsum = 4, 12, 13, 16
	udpCsum                              = 6
)

// Segments returns how many IP packets the buffer becomes: 1 for a single
// packet, and 0 if its GSO metadata contradict its headers, which makes it a
// malformed packet. It decodes Bytes if nobody has.
func (b *Buffer) Segments() int {
	if b.decode() != OK || !b.consistent() {
		return 0
	}
	if b.GSO.Size == 0 {
		return 1
	}
	payload, size := int(b.Info.Length)-int(b.Info.Payload), int(b.GSO.Size)
	return max(1, (payload+size-1)/size)
}

// consistent reports whether GSO can be what it says of the decoded packet.
func (b *Buffer) consistent() bool {
	in, g := &b.Info, &b.GSO
	if g.Size != 0 {
		if g.Proto != in.Key.Proto || in.Fragment != Whole {
			return false
		}
		// A UDP superpacket with a surplus area (RFC 9868) cannot be cut.
		return g.Proto == TCP ||
			g.Proto == UDP && uint32(binary.BigEndian.Uint16(b.Bytes[in.L4+4:])) == in.Length-uint32(in.L4)
	}
	return !g.NeedsCsum || g.CsumStart >= in.L4 && uint32(g.CsumStart)+uint32(g.CsumOffset)+2 <= in.Length
}

// FinishChecksum completes the partial checksum of a single packet in place
// and clears NeedsCsum. It does nothing to a complete one, to a superpacket
// (the Segmenter computes each segment's) and to a malformed one.
func (b *Buffer) FinishChecksum() {
	if !b.GSO.NeedsCsum || b.GSO.Size != 0 || b.decode() != OK || !b.consistent() {
		return
	}
	finish(b.Bytes[:b.Info.Length], int(b.GSO.CsumStart), int(b.GSO.CsumOffset))
	b.GSO.NeedsCsum = false
}

// finish replaces the partial checksum at b[start+offset:] by that of b[start:].
func finish(b []byte, start, offset int) {
	putTransportSum(b[start+offset:], ^Checksum(b[start:], 0))
}

// putTransportSum writes a transport checksum; 0 is written as its equal
// 0xffff, because 0 says "none" in UDP (RFC 768).
func putTransportSum(dst []byte, sum uint16) {
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(dst, sum)
}

// Segmenter cuts a buffer into the IP packets that go on the wire: TCP
// segmentation (TSO) and UDP segmentation (USO) with the headers and checksums
// complete. A buffer that is not a superpacket is copied once. The zero value
// has nothing left; a Segmenter is meant to be kept and Reset. Not safe for
// concurrent use.
type Segmenter struct {
	src        []byte // borrowed: the packet without padding
	header, l4 int    // bytes repeated before each segment; transport header's offset
	size       int    // payload bytes of a segment
	at         int    // payload bytes done
	left, n    int    // packets to come, packets in all
	v4, tcp    bool
	single     bool
	noSum      bool // UDP over IPv4 that carries no checksum
	gso        GSO
	id         uint16
	seq        uint32
	flags      uint8
	// Sums of what is the same in every segment: the IPv4 header without
	// length, identification and checksum; pseudo-header and transport header
	// without length, sequence number, flags and checksum.
	ipSum, l4Sum uint64
}

// Reset starts at b's first segment. borrowed: b must neither change nor be
// released until the last Next, or the next Reset. A malformed b (Segments is
// 0) has no segments.
func (s *Segmenter) Reset(b *Buffer) {
	s.n = b.Segments()
	s.left, s.at = s.n, 0
	if s.n == 0 {
		s.src = nil
		return
	}
	in := &b.Info
	s.src = b.Bytes[:in.Length]
	s.gso = b.GSO
	s.single = b.GSO.Size == 0
	if s.single {
		return
	}
	s.header, s.l4, s.size = int(in.Payload), int(in.L4), int(b.GSO.Size)
	s.v4, s.tcp = in.Version == 4, in.Key.Proto == TCP
	s.noSum = false
	if s.v4 {
		s.id = binary.BigEndian.Uint16(s.src[4:])
		s.ipSum = uint64(Checksum(s.src[:2], 0)) + uint64(Checksum(s.src[6:10], 0)) + uint64(Checksum(s.src[12:s.l4], 0))
	}
	t := s.src[s.l4:s.header]
	s.l4Sum = sumAddrs(s.src, in.Version) + uint64(in.Key.Proto)
	if s.tcp {
		s.seq, s.flags = binary.BigEndian.Uint32(t[tcpSeq:]), t[tcpFlags]
		s.l4Sum += uint64(Checksum(t[:tcpSeq], 0)) + uint64(Checksum(t[8:tcpOffset], 0)) +
			uint64(Checksum(t[14:tcpCsum], 0)) + uint64(Checksum(t[18:], 0)) + uint64(t[tcpOffset])<<8
	} else {
		s.l4Sum += uint64(Checksum(t[:4], 0))
		s.noSum = s.v4 && !b.GSO.NeedsCsum && t[udpCsum] == 0 && t[udpCsum+1] == 0
	}
}

// Left is the number of packets still to come.
func (s *Segmenter) Left() int { return s.left }

// Len is the length of the next packet, bytes; 0 if none is left.
func (s *Segmenter) Len() int {
	switch {
	case s.left == 0:
		return 0
	case s.single:
		return len(s.src)
	}
	return s.header + min(s.size, len(s.src)-s.header-s.at)
}

// Next writes the next packet into dst, which must not overlap the buffer, and
// returns its length. ok is false if nothing is left, or if dst is shorter
// than Len; nothing is lost then.
func (s *Segmenter) Next(dst []byte) (n int, ok bool) {
	n = s.Len()
	if n == 0 || len(dst) < n {
		return 0, false
	}
	dst = dst[:n]
	first := s.left == s.n
	s.left--
	if s.single {
		copy(dst, s.src)
		if s.gso.NeedsCsum {
			finish(dst, int(s.gso.CsumStart), int(s.gso.CsumOffset))
		}
		return n, true
	}
	copy(dst, s.src[:s.header])
	copy(dst[s.header:], s.src[s.header+s.at:])
	s.at += n - s.header
	if s.v4 {
		binary.BigEndian.PutUint16(dst[2:], uint16(n))
		binary.BigEndian.PutUint16(dst[4:], s.id)
		binary.BigEndian.PutUint16(dst[10:], ^fold(s.ipSum+uint64(n)+uint64(s.id)))
		s.id++
	} else {
		binary.BigEndian.PutUint16(dst[4:], uint16(n-ipv6Len))
	}
	length := n - s.l4
	sum := s.l4Sum + uint64(length)
	t := dst[s.l4:]
	if s.tcp {
		flags := s.flags
		if !first {
			flags &^= FlagCWR
		}
		if s.left > 0 {
			flags &^= FlagFIN | FlagPSH
		}
		binary.BigEndian.PutUint32(t[tcpSeq:], s.seq)
		t[tcpFlags] = flags
		sum += uint64(s.seq>>16) + uint64(s.seq&0xffff) + uint64(flags)
		s.seq += uint32(n - s.header)
		binary.BigEndian.PutUint16(t[tcpCsum:], ^Checksum(dst[s.header:], sum))
		return n, true
	}
	binary.BigEndian.PutUint16(t[4:], uint16(length))
	if !s.noSum {
		// The length is in the pseudo-header and in the UDP header.
		putTransportSum(t[udpCsum:], ^Checksum(dst[s.header:], sum+uint64(length)))
	}
	return n, true
}
