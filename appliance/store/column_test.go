package store

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func roundTrip(t interface{ Fatalf(string, ...any) }, v []int64) int {
	var c columnCoder
	b := c.append(nil, v)
	out := make([]int64, len(v))
	if err := decodeColumn(out, b); err != nil {
		t.Fatalf("%v: %v", v, err)
	}
	if !slices.Equal(out, v) {
		t.Fatalf("wrote %v\n read %v (mode %#x)", v, out, b[0])
	}
	return len(b)
}

func TestColumnKinds(t *testing.T) {
	ramp, wave, sparse, holes := make([]int64, 120), make([]int64, 120), make([]int64, 120), make([]int64, 120)
	for i := range ramp {
		ramp[i] = 1_790_000_000_000 + int64(i)*10_000
		wave[i] = 2000 + int64(500*math.Sin(float64(i)/5))*10
		holes[i] = missing
		if i%3 > 0 {
			holes[i] = int64(i * i)
		}
	}
	sparse[40], sparse[41], sparse[100] = 700, 35, 12
	for name, c := range map[string]struct {
		v    []int64
		most int
	}{
		"constant": {slices.Repeat([]int64{7}, 120), 2},
		"one":      {[]int64{-4}, 2},
		"missing":  {slices.Repeat([]int64{missing}, 120), 1},
		"ramp":     {ramp, 12},
		"wave":     {wave, 100},
		"sparse":   {sparse, 16},
		"holes":    {holes, 120},
		"extremes": {[]int64{math.MinInt32 + 1, math.MaxInt32, 0, missing, -1, math.MaxInt32}, 60},
	} {
		if n := roundTrip(t, c.v); n > c.most {
			t.Errorf("%s: %d bytes, want at most %d", name, n, c.most)
		}
	}
}

func TestColumnRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.OneOf(
			rapid.Int64Range(-3, 3), rapid.Int64Range(0, 5000), rapid.Just(missing), rapid.Just(int64(0)),
			rapid.Int64Range(math.MinInt32+1, math.MaxInt32), rapid.Int64Range(1_700_000_000_000, 1_700_000_600_000),
		)
		if rapid.Bool().Draw(t, "mixed") {
			roundTrip(t, rapid.SliceOfN(value, 1, maxChunk).Draw(t, "v"))
			return
		}
		// A walk, as measurements are.
		v := make([]int64, rapid.IntRange(1, maxChunk).Draw(t, "n"))
		step, at := rapid.Int64Range(0, 100).Draw(t, "step"), rapid.Int64Range(-1000, 1<<40).Draw(t, "start")
		for i := range v {
			at += rapid.Int64Range(-step, step).Draw(t, "d") * 10
			v[i] = at
		}
		roundTrip(t, v)
	})
}

func FuzzColumn(f *testing.F) {
	var c columnCoder
	f.Add(c.append(nil, []int64{1, 2, 3, 500, missing, 7}), 6)
	f.Add(c.append(nil, make([]int64, 120)), 120)
	f.Add([]byte{kindRuns | fromLast<<2, 0, 3, 0xff, 0xff, 0xff, 0xff, 0xff}, 50)
	f.Fuzz(func(_ *testing.T, b []byte, n int) {
		out := make([]int64, max(0, min(n, maxChunk)))
		_ = decodeColumn(out, b)
	})
}
