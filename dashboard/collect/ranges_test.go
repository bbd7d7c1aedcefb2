package collect

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A set of ranges is what a map of its numbers says it is.
func TestRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const top = 60
		var s Ranges
		have := map[uint64]bool{}
		draw := func() Range {
			first := rapid.Uint64Range(1, top).Draw(t, "first")
			return Range{first, rapid.Uint64Range(first, top).Draw(t, "last")}
		}
		for range rapid.IntRange(0, 12).Draw(t, "n") {
			r := draw()
			before := slices.Clone(s)
			next := s.Add(r)
			if !slices.Equal(before, s) {
				t.Fatalf("Add changed %v to %v", before, s)
			}
			s = next
			for n := r.First; n <= r.Last; n++ {
				have[n] = true
			}
			if !s.valid() {
				t.Fatalf("%v after %v", s, r)
			}
		}
		if s.Len() != uint64(len(have)) {
			t.Fatalf("%v has %d, want %d", s, s.Len(), len(have))
		}
		for n := uint64(1); n <= top; n++ {
			if s.Has(n) != have[n] {
				t.Fatalf("%v: has %d: %v", s, n, s.Has(n))
			}
		}
		r := draw()
		missing := map[uint64]bool{}
		last := r.Last + 2
		for _, m := range s.Missing(r) {
			if m.First > m.Last || m.Last+1 >= last || m.First < r.First || m.Last > r.Last {
				t.Fatalf("missing of %v in %v: %v", s, r, s.Missing(r))
			}
			last = m.First
			for n := m.First; n <= m.Last; n++ {
				missing[n] = true
			}
		}
		for n := r.First; n <= r.Last; n++ {
			if missing[n] == have[n] {
				t.Fatalf("missing of %v in %v: %v, wrong at %d", s, r, s.Missing(r), n)
			}
		}
		if s.Covers(r) != (len(missing) == 0) {
			t.Fatalf("%v covers %v: %v", s, r, s.Covers(r))
		}
	})
}
