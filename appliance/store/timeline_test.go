package store

import (
	"testing"

	"pgregory.net/rapid"
)

func TestTimelineSteady(t *testing.T) {
	var tl timeline
	for i := range int64(1000) {
		if at, _, stepped := tl.place(hourMs + i*1000); at != hourMs+i*1000 || stepped {
			t.Fatalf("tick %d: %d, stepped %v", i, at, stepped)
		}
	}
	if len(tl.spans) != 1 {
		t.Fatalf("%d spans", len(tl.spans))
	}
}

// A clock that is put back by 30 s: the timeline goes on and is with the clock
// again after 8 times as long.
func TestTimelineBack(t *testing.T) {
	var tl timeline
	at := int64(0)
	for i := range int64(60) {
		at, _, _ = tl.place(i * 1000)
	}
	clock := int64(29_000)
	next, s, stepped := tl.place(clock)
	if next != at+1 || !stepped || s.by != -30_000 || s.ahead != 30_001 {
		t.Fatalf("%d after %d, %+v", next, at, s)
	}
	minutes := map[int64]bool{}
	for range 300 {
		last := next
		clock += 1000
		next, _, _ = tl.place(clock)
		if next <= last {
			t.Fatalf("%d after %d", next, last)
		}
		minutes[next/minuteMs] = true
	}
	if next != clock {
		t.Errorf("timeline %d, clock %d", next, clock)
	}
	for m := int64(1); m < next/minuteMs; m++ {
		if !minutes[m] {
			t.Errorf("minute %d is lost", m)
		}
	}
}

// A clock that was wrong by years comes back to where it was.
func TestTimelineIsland(t *testing.T) {
	var tl timeline
	for i := range int64(60) {
		tl.place(i * 1000)
	}
	for i := range int64(60) {
		tl.place(365*dayMs + i*1000)
	}
	at, s, stepped := tl.place(120_000)
	if at != 120_000 || !stepped || s.ahead != 0 {
		t.Fatalf("%d, %+v", at, s)
	}
	if at, _, _ := tl.place(121_000); at != 121_000 {
		t.Fatalf("%d", at)
	}
	// A boot without a clock: nothing may get into what is there.
	if at, _, _ := tl.place(30_000); at != 121_001 {
		t.Fatalf("%d, want just after the newest", at)
	}
}

func TestTimelineNeverTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tl timeline
		seen := map[int64]bool{}
		var written []int64
		clock := rapid.Int64Range(0, 1<<40).Draw(t, "start")
		for range rapid.IntRange(1, 200).Draw(t, "ticks") {
			at, s, _ := tl.place(clock)
			if seen[at] {
				t.Fatalf("%d is written twice: %v", at, written)
			}
			if s.ahead != 0 && at-clock != s.ahead {
				t.Fatalf("ahead %d, but %d at %d", s.ahead, at, clock)
			}
			seen[at] = true
			written = append(written, at)
			clock += rapid.OneOf(rapid.Just(int64(1000)), rapid.Int64Range(-60_000, 60_000),
				rapid.Int64Range(-2*dayMs, 2*dayMs)).Draw(t, "moved")
		}
	})
}
