package store

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
)

// A sketch counts integers in buckets whose width is 1/64 of their value, so
// that the middle of a bucket is at most 1/128 (0.8 %) off; integers up to 127
// have buckets of their own. (The bucketing of HDR histograms, G. Tene 2012;
// merging and quantiles as in DDSketch, Masson et al., VLDB 2019.) Negative
// integers count as 0: no metric has any.
type sketch struct {
	low    int      // bucket of counts[0]
	counts []uint32 // dense: what is measured lies close together
	total  uint64
}

const (
	subBits    = 6 // 64 buckets for each power of two
	maxBuckets = (32 - subBits) << subBits
)

func bucketOf(v int32) int {
	if v < 1<<(subBits+1) {
		return int(max(v, 0))
	}
	e := bits.Len32(uint32(v)) - 1 - subBits
	return e<<subBits + int(v>>e)
}

// middle is the number that stands for a bucket.
func middle(bucket int) float64 {
	if bucket < 1<<(subBits+1) {
		return float64(bucket)
	}
	e := bucket>>subBits - 1
	low := int64(bucket-e<<subBits) << e
	return float64(low) + float64(int64(1)<<e-1)/2
}

func (s *sketch) add(v int32) { s.addCount(bucketOf(v), 1) }

func (s *sketch) addCount(bucket int, n uint32) {
	switch {
	case len(s.counts) == 0:
		s.low = bucket
		s.counts = append(s.counts, 0)
	case bucket < s.low:
		s.counts = slices.Insert(s.counts, 0, make([]uint32, s.low-bucket)...)
		s.low = bucket
	case bucket >= s.low+len(s.counts):
		s.counts = append(s.counts, make([]uint32, bucket-s.low-len(s.counts)+1)...)
	}
	s.counts[bucket-s.low] += n
	s.total += uint64(n)
}

func (s *sketch) merge(o *sketch) {
	for i, n := range o.counts {
		if n > 0 {
			s.addCount(o.low+i, n)
		}
	}
}

// quantile is the value of nearest rank ceil(p*total), in stored units.
func (s *sketch) quantile(p float64) float64 {
	rank := uint64(float64(s.total)*p + 0.999999)
	rank = min(max(rank, 1), s.total)
	seen := uint64(0)
	for i, n := range s.counts {
		seen += uint64(n)
		if seen >= rank {
			return middle(s.low + i)
		}
	}
	return 0
}

// append codes the sketch: how many buckets are not empty, then for each the
// distance from the one before and the count.
func (s *sketch) append(dst []byte) []byte {
	used := uint64(0)
	for _, n := range s.counts {
		if n > 0 {
			used++
		}
	}
	dst = binary.AppendUvarint(dst, used)
	before := 0
	for i, n := range s.counts {
		if n > 0 {
			dst = binary.AppendUvarint(dst, uint64(s.low+i-before))
			dst = binary.AppendUvarint(dst, uint64(n))
			before = s.low + i
		}
	}
	return dst
}

// readSketch adds a coded sketch to s and returns what follows it.
func readSketch(s *sketch, b []byte) ([]byte, error) {
	r := reader{b: b}
	used := r.uvarint()
	bucket := uint64(0)
	for range min(used, maxBuckets) {
		gap, n := r.uvarint(), r.uvarint()
		bucket += gap
		if r.bad || gap > maxBuckets || bucket >= maxBuckets || n > 1<<32-1 {
			return nil, fmt.Errorf("sketch: %w", errShort)
		}
		s.addCount(int(bucket), uint32(n))
	}
	if r.bad || used > maxBuckets {
		return nil, fmt.Errorf("sketch: %w", errShort)
	}
	return r.b, nil
}

// skipSketch returns what follows a coded sketch.
func skipSketch(b []byte) ([]byte, error) {
	r := reader{b: b}
	for n := min(r.uvarint(), maxBuckets); n > 0 && !r.bad; n-- {
		r.uvarint()
		r.uvarint()
	}
	if r.bad {
		return nil, fmt.Errorf("sketch: %w", errShort)
	}
	return r.b, nil
}

// hourSketch is one metric of all series in one hour: the whole, and by minute.
type hourSketch struct {
	hour    sketch
	minutes [60]sketch
}

func (h *hourSketch) add(at int64, v int32) {
	h.minutes[at%hourMs/minuteMs].add(v)
}

// close adds up the hour from its minutes.
func (h *hourSketch) close() {
	h.hour = sketch{}
	for i := range h.minutes {
		h.hour.merge(&h.minutes[i])
	}
}

// encode codes the hour, then the minutes.
func (h *hourSketch) encode() []byte {
	h.close()
	b := h.hour.append([]byte{sketchVersion})
	for i := range h.minutes {
		b = h.minutes[i].append(b)
	}
	return b
}

const sketchVersion = 1

// mergeMinutes adds the minutes of a coded hour.
func (h *hourSketch) mergeMinutes(b []byte) error {
	if len(b) == 0 || b[0] != sketchVersion {
		return fmt.Errorf("sketch: unknown version")
	}
	b, err := skipSketch(b[1:])
	for i := range h.minutes {
		if err != nil {
			return err
		}
		b, err = readSketch(&h.minutes[i], b)
	}
	return err
}
