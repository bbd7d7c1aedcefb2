package packet

import (
	"math/bits"

	"golang.org/x/sys/cpu"
)

// sumAVX2 adds the n/2 little-endian words at p, 32768 less for each. n is a
// multiple of 32, 32 to 65536.
//
//go:noescape
func sumAVX2(p *byte, n int) int32

const (
	avxMin   = 128     // shorter ones are done sooner without
	avxChunk = 1 << 16 // the most sumAVX2 takes
)

// sumWords is sumGeneric in the fastest way of this machine.
func sumWords(b []byte) uint64 {
	if len(b) < avxMin || !cpu.X86.HasAVX2 {
		return sumGeneric(b)
	}
	var sum uint64
	for len(b) >= 32 {
		n := min(len(b)&^31, avxChunk)
		sum += uint64(int64(sumAVX2(&b[0], n)) + int64(n/2)<<15)
		b = b[n:]
	}
	sum, carry := bits.Add64(sum, sumGeneric(b), 0)
	return sum + carry
}
