package store

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestBucketError(t *testing.T) {
	for v := int32(0); v >= 0 && v < math.MaxInt32-1<<20; v += 1 + v/1000 {
		b := bucketOf(v)
		if b < 0 || b >= maxBuckets {
			t.Fatalf("%d: bucket %d", v, b)
		}
		if off := math.Abs(middle(b) - float64(v)); off > float64(v)/100 {
			t.Fatalf("%d: stands for %g", v, middle(b))
		}
	}
	if b := bucketOf(math.MaxInt32); b >= maxBuckets {
		t.Fatalf("bucket %d", b)
	}
	if bucketOf(Missing+1) != 0 {
		t.Fatal("a negative number is not 0")
	}
}

func TestSketchQuantile(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var whole sketch
	var all []int32
	for range 20 {
		var part sketch
		for range 500 {
			v := int32(math.Exp(rng.NormFloat64()+6)) + 1
			part.add(v)
			all = append(all, v)
		}
		// Through its coded form, as it is kept.
		rest, err := readSketch(&whole, part.append(nil))
		if err != nil || len(rest) != 0 {
			t.Fatal(err, rest)
		}
	}
	slices.Sort(all)
	for _, p := range []float64{0, 0.01, 0.5, 0.95, 0.99, 1} {
		exact := float64(all[max(0, int(math.Ceil(p*float64(len(all))))-1)])
		if got := whole.quantile(p); math.Abs(got-exact) > exact/100 {
			t.Errorf("p%g: %g, exactly %g", 100*p, got, exact)
		}
	}
}

func TestSketchRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := new(hourSketch)
		for range rapid.IntRange(0, 50).Draw(t, "n") {
			h.add(rapid.Int64Range(0, hourMs-1).Draw(t, "at"), rapid.Int32().Draw(t, "v"))
		}
		back := new(hourSketch)
		if err := back.mergeMinutes(h.encode()); err != nil {
			t.Fatal(err)
		}
		back.close()
		if !slices.Equal(back.hour.counts, h.hour.counts) || back.hour.total != h.hour.total {
			t.Fatalf("%v is read as %v", h.hour, back.hour)
		}
	})
}

func FuzzSketch(f *testing.F) {
	h := new(hourSketch)
	h.add(1000, 500)
	f.Add(h.encode())
	f.Fuzz(func(_ *testing.T, b []byte) { _ = new(hourSketch).mergeMinutes(b) })
}
