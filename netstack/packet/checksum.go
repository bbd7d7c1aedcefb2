package packet

import (
	"encoding/binary"
	"math/bits"
)

// Checksum returns the ones-complement sum (RFC 1071) of b as big-endian
// 16-bit words, an odd last byte padded with a zero, added to initial, a sum
// of such words. The result is folded and not inverted: a correct packet sums
// to 0xffff. b is borrowed.
func Checksum(b []byte, initial uint64) uint16 {
	// The sum may be taken in the machine's byte order and swapped at the end
	// (RFC 1071, 2(B)): little-endian loads are the cheap ones on our machines.
	sum, carry := bits.Add64(uint64(bits.ReverseBytes16(fold(sumWords(b)))), initial, 0)
	return fold(sum + carry)
}

// sumGeneric is the sum of b as little-endian words, carries added in.
func sumGeneric(b []byte) uint64 {
	var sum, carry uint64
	for len(b) >= 64 {
		p := (*[64]byte)(b)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(p[0:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(p[8:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(p[16:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(p[24:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(p[32:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(p[40:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(p[48:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(p[56:]), carry)
		sum, carry = bits.Add64(sum, 0, carry)
		b = b[64:]
	}
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b), carry)
		b = b[8:]
	}
	var tail uint64
	if len(b) >= 4 {
		tail = uint64(binary.LittleEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		tail += uint64(binary.LittleEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		tail += uint64(b[0])
	}
	sum, carry = bits.Add64(sum, tail, carry)
	return sum + carry
}

// fold reduces a sum of 16-bit words to 16 bits, carries added in.
func fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff // 33 bits
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum)
}

// sumAddrs is the ones-complement sum of a packet's addresses, the larger part
// of its pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1).
func sumAddrs(b []byte, version uint8) uint64 {
	if version == 4 {
		return uint64(Checksum(b[12:20], 0))
	}
	return uint64(Checksum(b[8:40], 0))
}

// replaced is the checksum field after one 16-bit word that it covers changed
// from old to now (RFC 1624, equation 3).
func replaced(field, old, now uint16) uint16 {
	return ^fold(uint64(^field) + uint64(^old) + uint64(now))
}
