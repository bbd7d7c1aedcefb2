package store

import (
	"errors"
	"math/bits"
)

// errShort: a coded value ends before what it announces.
var errShort = errors.New("coded value is cut short")

// bitWriter appends bits, the most significant one first.
type bitWriter struct {
	b   []byte
	acc uint64 // the lower n bits are pending
	n   uint
}

// put appends the lower n bits of v, n <= 57.
func (w *bitWriter) put(v uint64, n uint) {
	w.acc = w.acc<<n | v&(1<<n-1)
	w.n += n
	for w.n >= 8 {
		w.n -= 8
		w.b = append(w.b, byte(w.acc>>w.n))
	}
}

// wide appends the lower n bits of v, n <= 64.
func (w *bitWriter) wide(v uint64, n uint) {
	if n > 32 {
		w.put(v>>32, n-32)
		n = 32
	}
	w.put(v, n)
}

// flush pads with zeros to a whole octet.
func (w *bitWriter) flush() []byte {
	if w.n > 0 {
		w.b = append(w.b, byte(w.acc<<(8-w.n)))
		w.n = 0
	}
	return w.b
}

// bitReader reads what a bitWriter wrote. Reading past the end sets bad and
// gives zeros.
type bitReader struct {
	b   []byte
	acc uint64 // the upper n bits are next
	n   uint
	bad bool
}

func (r *bitReader) refill() {
	if len(r.b) >= 8 {
		// Whole octets as far as they fit; the bits below them are read again.
		v := uint64(r.b[0])<<56 | uint64(r.b[1])<<48 | uint64(r.b[2])<<40 | uint64(r.b[3])<<32 |
			uint64(r.b[4])<<24 | uint64(r.b[5])<<16 | uint64(r.b[6])<<8 | uint64(r.b[7])
		r.acc |= v >> r.n
		whole := (64 - r.n) / 8
		r.b = r.b[whole:]
		r.n += whole * 8
		if r.n < 64 {
			r.acc &= ^uint64(0) << (64 - r.n)
		}
		return
	}
	for r.n <= 56 && len(r.b) > 0 {
		r.acc |= uint64(r.b[0]) << (56 - r.n)
		r.b = r.b[1:]
		r.n += 8
	}
}

// get reads n bits, 1 <= n <= 56.
func (r *bitReader) get(n uint) uint64 {
	if r.n < n {
		r.refill()
		if r.n < n {
			r.bad = true
			return 0
		}
	}
	v := r.acc >> (64 - n)
	r.acc <<= n
	r.n -= n
	return v
}

// wide reads n bits, n <= 64.
func (r *bitReader) wide(n uint) uint64 {
	if n > 32 {
		high := r.get(n - 32)
		return high<<32 | r.get(32)
	}
	if n == 0 {
		return 0
	}
	return r.get(n)
}

// ones counts one bits up to limit (<= 32), and skips the zero after them if
// there were fewer.
func (r *bitReader) ones(limit uint) uint {
	if r.n < limit+1 {
		r.refill()
	}
	q := uint(bits.LeadingZeros64(^r.acc))
	if q >= limit {
		if r.n < limit {
			r.bad = true
			return 0
		}
		r.acc <<= limit
		r.n -= limit
		return limit
	}
	if r.n < q+1 {
		r.bad = true
		return 0
	}
	r.acc <<= q + 1
	r.n -= q + 1
	return q
}

// gamma codes v >= 1 in 2*log2(v)+1 bits (Elias, 1975).
func (w *bitWriter) gamma(v uint64) {
	n := uint(bits.Len64(v)) - 1
	w.wide(1<<(n+1)-2, n+1) // n ones, then a zero
	w.wide(v, n)
}

func gammaBits(v uint64) int { return 2*bits.Len64(v) - 1 }

func (r *bitReader) gamma() uint64 {
	n := r.ones(32)
	return 1<<n | r.wide(n)
}

// riceLimit is the longest unary part; what is greater is written out.
const riceLimit = 24

// rice codes v with parameter k (Rice and Plaunt, 1971).
func (w *bitWriter) rice(v uint64, k uint) {
	if q := v >> k; q < riceLimit {
		n := uint(q) + 1
		w.put(1<<n-2, n)
		w.wide(v, k)
		return
	}
	w.put(1<<riceLimit-1, riceLimit)
	n := uint(bits.Len64(v))
	w.put(uint64(n-1), 6)
	w.wide(v, n)
}

func (r *bitReader) rice(k uint) uint64 {
	q := r.ones(riceLimit)
	if q < riceLimit {
		return uint64(q)<<k | r.wide(k)
	}
	return r.wide(uint(r.get(6)) + 1)
}

// riceBits is what rice takes for all of u together.
func riceBits(u []uint64, k uint) int {
	n := len(u) * int(k+1)
	for _, v := range u {
		q := v >> k
		if q >= riceLimit {
			q = riceLimit + 5 + uint64(bits.Len64(v)) - uint64(k)
		}
		n += int(q)
	}
	return n
}

// bestRice finds the parameter with the least bits, near the one that the mean
// suggests.
func bestRice(u []uint64) (k uint, cost int) {
	if len(u) == 0 {
		return 0, 0
	}
	var sum uint64
	for _, v := range u {
		sum += min(v, 1<<40)
	}
	near := uint(bits.Len64(sum / uint64(len(u))))
	low := near - min(near, 2)
	k, cost = low, riceBits(u, low)
	for c := low + 1; c <= near; c++ {
		if n := riceBits(u, c); n < cost {
			k, cost = c, n
		}
	}
	return k, cost
}

func zigzag(v int64) uint64   { return uint64(v<<1) ^ uint64(v>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }
