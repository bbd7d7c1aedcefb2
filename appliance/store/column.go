package store

import (
	"encoding/binary"
	"fmt"
)

// A column is up to maxChunk numbers of one kind in order of time. Its first
// octet says how they are coded:
//
//	bits 0-1  kind: constant, Rice, runs of zeros, all missing
//	bits 2-3  predictor: mean, minimum, the number before, the line through both before
//	bit  4    all differences are multiples of a divisor, which follows
//	bit  5    some are missing: a bitmap of those present follows
//
// See FORMAT.md.
const (
	kindConstant = iota
	kindRice
	kindRuns
	kindMissing
)

const (
	fromMean = iota // order 0, signed distance from a base
	fromLow         // order 0, unsigned distance from the least
	fromLast        // order 1
	fromLine        // order 2
	predictors
)

const (
	flagDivisor = 1 << 4
	flagMissing = 1 << 5
	flagUnknown = 0xc0
)

// maxChunk is how many samples a chunk holds.
const maxChunk = 120

// missing is [Missing] in a column.
const missing = int64(Missing)

// columnCoder has the scratch space of encoding; it is not safe for concurrent use.
type columnCoder struct {
	x       [maxChunk]int64
	u       [predictors + 1][maxChunk]uint64
	nonzero [maxChunk]uint64
}

// append codes v, at most maxChunk numbers.
func (c *columnCoder) append(dst []byte, v []int64) []byte {
	x := c.x[:0]
	for _, n := range v {
		if n != missing {
			x = append(x, n)
		}
	}
	if len(x) == 0 {
		return append(dst, kindMissing)
	}
	at := len(dst)
	dst = append(dst, 0)
	if len(x) < len(v) {
		dst[at] |= flagMissing
		dst = appendPresent(dst, v)
	}
	base := x[0]
	dst = binary.AppendVarint(dst, base)
	divisor := uint64(0)
	for i := range x {
		x[i] -= base
		if divisor != 1 {
			divisor = gcd(divisor, magnitude(x[i]))
		}
	}
	if divisor == 0 {
		dst[at] |= kindConstant
		return dst
	}
	if divisor > 1 {
		dst[at] |= flagDivisor
		dst = binary.AppendUvarint(dst, divisor)
		for i := range x {
			x[i] /= int64(divisor)
		}
	}
	return c.appendResiduals(dst, at, x)
}

// appendResiduals codes what the best predictor leaves. x[0] is 0.
func (c *columnCoder) appendResiduals(dst []byte, at int, x []int64) []byte {
	bases := [...]int64{fromMean: mean(x), fromLow: least(x), fromLast: 0, fromLine: 0}
	best, bestK, bestCost, bestRuns := 0, uint(0), int(^uint(0)>>1), false
	var u [predictors][]uint64
	for p := range predictors {
		if p == fromMean {
			if m := majority(x); mostly(x, m) {
				bases[p] = m // a spiky column: its usual value, so that most are 0
			}
		}
		u[p] = residuals(c.u[p][:0], p, bases[p], x)
		k, cost := bestRice(u[p])
		if cost < bestCost {
			best, bestK, bestCost, bestRuns = p, k, cost, false
		}
		if k, cost := c.runsCost(u[p]); cost < bestCost {
			best, bestK, bestCost, bestRuns = p, k, cost, true
		}
	}
	dst[at] |= byte(best << 2)
	if best <= fromLow {
		dst = binary.AppendVarint(dst, bases[best])
	}
	w := bitWriter{b: append(dst, byte(bestK))}
	if !bestRuns {
		w.b[at] |= kindRice
		for _, v := range u[best] {
			w.rice(v, bestK)
		}
		return w.flush()
	}
	w.b[at] |= kindRuns
	run := uint64(0)
	for _, v := range u[best] {
		if v == 0 {
			run++
			continue
		}
		w.gamma(run + 1)
		w.rice(v-1, bestK)
		run = 0
	}
	if run > 0 {
		w.gamma(run + 1)
	}
	return w.flush()
}

// runsCost is the cost of coding runs of zeros, and the Rice parameter of the
// rest; it is huge where few are zero.
func (c *columnCoder) runsCost(u []uint64) (k uint, cost int) {
	rest := c.nonzero[:0]
	run := uint64(0)
	for _, v := range u {
		if v == 0 {
			run++
			continue
		}
		cost += gammaBits(run + 1)
		run = 0
		rest = append(rest, v-1)
	}
	if 2*len(rest) > len(u) {
		return 0, int(^uint(0) >> 1)
	}
	if run > 0 {
		cost += gammaBits(run + 1)
	}
	k, n := bestRice(rest)
	return k, cost + n
}

// mostly reports whether most of x are v.
func mostly(x []int64, v int64) bool {
	n := 0
	for _, y := range x {
		if y == v {
			n++
		}
	}
	return 2*n > len(x)
}

func residuals(u []uint64, predictor int, base int64, x []int64) []uint64 {
	switch predictor {
	case fromMean:
		for _, v := range x {
			u = append(u, zigzag(v-base))
		}
	case fromLow:
		for _, v := range x {
			u = append(u, uint64(v-base))
		}
	case fromLast:
		last := int64(0) // x[0] is 0
		for _, v := range x[1:] {
			u = append(u, zigzag(v-last))
			last = v
		}
	case fromLine:
		last, slope := int64(0), int64(0)
		for _, v := range x[1:] {
			u = append(u, zigzag(v-last-slope))
			last, slope = v, v-last
		}
	}
	return u
}

// decodeColumn reads n numbers into out, which has room for them. It reads
// nothing past b and never panics, whatever b holds.
func decodeColumn(out []int64, b []byte) error {
	if len(b) == 0 {
		return errShort
	}
	mode := b[0]
	b = b[1:]
	if mode&flagUnknown != 0 {
		return fmt.Errorf("unknown column coding %#x", mode)
	}
	kind := mode & 3
	if kind == kindMissing {
		for i := range out {
			out[i] = missing
		}
		return nil
	}
	present := []byte(nil)
	n := len(out)
	if mode&flagMissing != 0 {
		size := (len(out) + 7) / 8
		if len(b) < size {
			return errShort
		}
		present, b = b[:size], b[size:]
		n = countPresent(present, len(out))
	}
	base, size := binary.Varint(b)
	if size <= 0 {
		return errShort
	}
	b = b[size:]
	x := out[len(out)-n:] // spread over out below, from its front
	divisor := int64(1)
	if mode&flagDivisor != 0 {
		d, size := binary.Uvarint(b)
		if size <= 0 {
			return errShort
		}
		divisor, b = int64(d), b[size:]
	}
	switch kind {
	case kindConstant:
		for i := range x {
			x[i] = 0
		}
	default:
		if err := decodeResiduals(x, b, int(mode>>2&3), kind == kindRuns); err != nil {
			return err
		}
	}
	for i := range x {
		x[i] = x[i]*divisor + base
	}
	if present != nil {
		spread(out, x, present)
	}
	return nil
}

func decodeResiduals(x []int64, b []byte, predictor int, runs bool) error {
	base := int64(0)
	if predictor <= fromLow {
		v, size := binary.Varint(b)
		if size <= 0 {
			return errShort
		}
		base, b = v, b[size:]
	}
	if len(b) == 0 {
		return errShort
	}
	k := uint(b[0])
	if k > 63 {
		return fmt.Errorf("rice parameter %d", k)
	}
	r := bitReader{b: b[1:]}
	rest := x
	if predictor >= fromLast && len(x) > 0 {
		x[0] = 0
		rest = x[1:]
	}
	if runs {
		r.runs(rest, k)
	} else {
		for i := range rest {
			rest[i] = int64(r.rice(k))
		}
	}
	if r.bad {
		return errShort
	}
	switch predictor {
	case fromMean:
		for i := range rest {
			rest[i] = unzigzag(uint64(rest[i])) + base
		}
	case fromLow:
		for i := range rest {
			rest[i] += base
		}
	case fromLast:
		last := int64(0)
		for i := range rest {
			last += unzigzag(uint64(rest[i]))
			rest[i] = last
		}
	case fromLine:
		last, slope := int64(0), int64(0)
		for i := range rest {
			slope += unzigzag(uint64(rest[i]))
			last += slope
			rest[i] = last
		}
	}
	return nil
}

// runs reads runs of zeros with a number after each.
func (r *bitReader) runs(x []int64, k uint) {
	for i := 0; i < len(x) && !r.bad; i++ {
		run := r.gamma() - 1
		for ; run > 0 && i < len(x); run-- {
			x[i] = 0
			i++
		}
		if i < len(x) {
			x[i] = int64(r.rice(k) + 1)
		}
	}
}

func appendPresent(dst []byte, v []int64) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, (len(v)+7)/8)...)
	for i, n := range v {
		if n != missing {
			dst[at+i/8] |= 1 << (i % 8)
		}
	}
	return dst
}

func countPresent(bitmap []byte, n int) int {
	count := 0
	for i := range n {
		count += int(bitmap[i/8] >> (i % 8) & 1)
	}
	return count
}

// spread moves x, which is the end of out, to where the bitmap says.
func spread(out, x []int64, bitmap []byte) {
	j := 0
	for i := range out {
		if bitmap[i/8]>>(i%8)&1 == 0 {
			out[i] = missing
			continue
		}
		// i <= the index of x[j] in out, so nothing is overwritten unread.
		out[i] = x[j]
		j++
	}
}

func mean(x []int64) int64 {
	sum := int64(0)
	for _, v := range x {
		sum += v
	}
	return sum / int64(len(x))
}

func least(x []int64) int64 {
	low := x[0]
	for _, v := range x {
		low = min(low, v)
	}
	return low
}

// majority is the value that more than half have, if there is one (Boyer and
// Moore, 1981).
func majority(x []int64) int64 {
	candidate, votes := int64(0), 0
	for _, v := range x {
		switch {
		case votes == 0:
			candidate, votes = v, 1
		case v == candidate:
			votes++
		default:
			votes--
		}
	}
	return candidate
}

func magnitude(v int64) uint64 {
	if v < 0 {
		return uint64(-v)
	}
	return uint64(v)
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
