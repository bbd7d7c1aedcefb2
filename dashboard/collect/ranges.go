package collect

import "sort"

// Range is the records First to Last, both in it.
type Range struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// Ranges is a set of record numbers: ranges in rising order that neither
// overlap nor touch. The zero value is empty; methods return new sets.
type Ranges []Range

// Add is the set with a range more.
func (s Ranges) Add(r Range) Ranges {
	if r.First > r.Last {
		return s
	}
	// What r touches becomes one with it. Numbers begin at 1.
	i := sort.Search(len(s), func(i int) bool { return s[i].Last >= r.First-1 })
	j := i
	for j < len(s) && s[j].First-1 <= r.Last {
		r.First, r.Last = min(r.First, s[j].First), max(r.Last, s[j].Last)
		j++
	}
	out := make(Ranges, 0, len(s)-(j-i)+1)
	out = append(append(out, s[:i]...), r)
	return append(out, s[j:]...)
}

// Covers reports whether all of a range is in the set.
func (s Ranges) Covers(r Range) bool {
	if r.First > r.Last {
		return true
	}
	for _, e := range s {
		if e.First <= r.First && r.Last <= e.Last {
			return true
		}
	}
	return false
}

// Has reports whether a number is in the set.
func (s Ranges) Has(n uint64) bool { return s.Covers(Range{n, n}) }

// Missing are the parts of a range that are not in the set, newest first.
func (s Ranges) Missing(r Range) Ranges {
	var out Ranges
	for i := len(s) - 1; i >= 0 && r.First <= r.Last; i-- {
		switch e := s[i]; {
		case e.First > r.Last:
		case e.Last < r.First:
			i = 0 // and everything before is, too
		default:
			if e.Last < r.Last {
				out = append(out, Range{e.Last + 1, r.Last})
			}
			if e.First <= r.First {
				return out
			}
			r.Last = e.First - 1
		}
	}
	if r.First <= r.Last {
		out = append(out, r)
	}
	return out
}

// Len is how many numbers are in the set.
func (s Ranges) Len() uint64 {
	n := uint64(0)
	for _, r := range s {
		n += r.Last - r.First + 1
	}
	return n
}

// Last is the greatest number in the set, 0 if it is empty.
func (s Ranges) Last() uint64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].Last
}

// valid reports whether a set that was read is one.
func (s Ranges) valid() bool {
	for i, r := range s {
		if r.First == 0 || r.First > r.Last || i > 0 && (s[i-1].Last >= r.First || s[i-1].Last+1 == r.First) {
			return false
		}
	}
	return true
}
