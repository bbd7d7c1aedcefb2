package slot

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	prefix = "patronus-"
	suffix = ".efi"
	// unfinished is an image that is being written. The loader does not see it.
	unfinished = "patronus-new.part"
)

// Entry is one image on the EFI partition.
type Entry struct {
	Seq uint64
	// Trial says that the name carries a counter: Left tries are left, Done are
	// spent.
	Trial      bool
	Left, Done int
}

// Name is the file's name.
func (e Entry) Name() string {
	s := prefix + strconv.FormatUint(e.Seq, 10)
	if e.Trial {
		s += "+" + strconv.Itoa(e.Left)
		if e.Done > 0 {
			s += "-" + strconv.Itoa(e.Done)
		}
	}
	return s + suffix
}

// Parse reads a file's name; ok is false for what is no image of ours.
func Parse(name string) (e Entry, ok bool) {
	body, has := strings.CutPrefix(name, prefix)
	body, has2 := strings.CutSuffix(body, suffix)
	if !has || !has2 {
		return Entry{}, false
	}
	number, counter, trial := strings.Cut(body, "+")
	var err error
	if e.Seq, err = strconv.ParseUint(number, 10, 64); err != nil || e.Seq == 0 {
		return Entry{}, false
	}
	if trial {
		e.Trial = true
		left, done, spent := strings.Cut(counter, "-")
		if e.Left, err = strconv.Atoi(left); err != nil || e.Left < 0 {
			return Entry{}, false
		}
		if spent {
			if e.Done, err = strconv.Atoi(done); err != nil || e.Done < 0 {
				return Entry{}, false
			}
		}
	}
	return e, true
}

// Entries are the images among file names, in the order in which the loader
// tries them: those with tries left or none needed, newest first; then those
// that have failed.
func Entries(names []string) []Entry {
	var all []Entry
	for _, n := range names {
		if e, ok := Parse(n); ok {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b Entry) int {
		if a.failed() != b.failed() {
			if a.failed() {
				return 1
			}
			return -1
		}
		return cmp.Compare(b.Seq, a.Seq)
	})
	return all
}

func (e Entry) failed() bool { return e.Trial && e.Left == 0 }

// Own is the entry of the image that runs.
func Own(entries []Entry, seq uint64) (Entry, error) {
	for _, e := range entries {
		if e.Seq == seq {
			return e, nil
		}
	}
	return Entry{}, fmt.Errorf("the running image (%d) is not on the EFI partition", seq)
}
