package flow

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"

	"patronus/netstack/packet"
)

// seeds are the secret multipliers of one table's hash.
type seeds [6]uint64

// newSeeds expands seed by SplitMix64 (Steele, Lea, Flood 2014), or draws at
// random if seed is 0.
func newSeeds(seed uint64) (s seeds) {
	if seed == 0 {
		seed = rand.Uint64()
	}
	for i := range s {
		seed += 0x9e3779b97f4a7c15
		z := seed
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		s[i] = (z ^ z>>31) | 1
	}
	return s
}

// fold multiplies to 128 bits and folds, the step of wyhash that Go's own map
// hash uses where there is no AES.
func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// hash is the same for both directions of a conversation. Each endpoint is
// mixed by itself with its port in a step of its own, so that neither an
// address bit nor the other port can make up for a port; the two are then
// added, which forgets the order.
func (s *seeds) hash(k *packet.Key) uint64 {
	a := fold(binary.LittleEndian.Uint64(k.Src[8:])^s[0], binary.LittleEndian.Uint64(k.Src[:8])^s[1])
	b := fold(binary.LittleEndian.Uint64(k.Dst[8:])^s[0], binary.LittleEndian.Uint64(k.Dst[:8])^s[1])
	a = fold(a^uint64(k.SrcPort), s[2])
	b = fold(b^uint64(k.DstPort), s[2])
	return fold((a+b)^s[3], uint64(k.Proto)^s[4])
}

// Same reports whether a and b are equal. It is several times faster than ==,
// which compares the fields of a key one by one: for finding runs of packets.
func Same(a, b *packet.Key) bool {
	return (word(&a.Src, 0)^word(&b.Src, 0))|
		(word(&a.Src, 8)^word(&b.Src, 8))|
		(word(&a.Dst, 0)^word(&b.Dst, 0))|
		(word(&a.Dst, 8)^word(&b.Dst, 8))|
		uint64(a.SrcPort^b.SrcPort)|uint64(a.DstPort^b.DstPort)|uint64(a.Proto^b.Proto) == 0
}

// opposite reports whether a is b reversed.
func opposite(a, b *packet.Key) bool {
	return (word(&a.Src, 0)^word(&b.Dst, 0))|
		(word(&a.Src, 8)^word(&b.Dst, 8))|
		(word(&a.Dst, 0)^word(&b.Src, 0))|
		(word(&a.Dst, 8)^word(&b.Src, 8))|
		uint64(a.SrcPort^b.DstPort)|uint64(a.DstPort^b.SrcPort)|uint64(a.Proto^b.Proto) == 0
}

func word(a *packet.Addr, at int) uint64 { return binary.NativeEndian.Uint64(a[at : at+8]) }
