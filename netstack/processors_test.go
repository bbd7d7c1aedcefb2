package netstack

import (
	"context"
	"runtime"
	"testing"
	"time"
)

func TestProcessors(t *testing.T) {
	p := processors{most: 6, use: 1}
	look := func(busy, idle float64, times, want int) {
		t.Helper()
		for range times {
			p.observe(busy, idle)
		}
		if p.use != want {
			t.Fatalf("%d processors after %d looks at %.2f busy, %.2f idle, want %d", p.use, times, busy, idle, want)
		}
	}
	look(0.8, 5, 1000, 1) // one is enough
	look(0.95, 5, processorsPress-1, 1)
	look(0.8, 5, 1, 1) // a moment is no reason
	look(0.95, 5, processorsPress, 2)
	look(1.0, 5, 1000, 2) // for what two are used for, one would be too few
	look(1.9, 4, processorsPress, 4)
	look(4, 2, processorsPress, 6) // all there are
	look(6, 0, 10, 6)
	look(2.5, 3, processorsCalm-1, 6) // not at once
	look(2.5, 3, 1, 5)
	look(2.5, 3, processorsCalm-1, 5)
	look(3.1, 2, 1, 5) // a busy moment begins the count anew
	look(2.3, 3, processorsCalm-1, 5)
	look(2.3, 3, 1, 4)
	look(0, 6, 3*processorsCalm, 1)
	look(0, 6, 1000, 1)
	// Others use the rest: one more would only take turns with them.
	look(1, 0.1, 1000, 1)
	look(1, 0.4, processorsPress, 2)
	look(1.1, 0.3, 1000, 2)
	look(1.0, 0.1, processorsCalm-1, 2)
	look(1.0, 0.1, 1, 1)
	// As many as are idle, not twice as many.
	look(1, 2.5, processorsPress, 2)
	look(2, 0.7, processorsPress, 3)
}

func TestParseIdle(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"28345.12 55301.07\n": 55301*time.Second + 70*time.Millisecond, "1.00 0.00": 0,
		"": -1, "1.00": -1, "1.00 2": -1, "1.00 2.5": -1, "1.00 -2.50": -1, "1.00 2.xx": -1, "1.00 99999999999999999999.00": -1, "1 1099511627775.00": -1,
	} {
		d, ok := parseIdle([]byte(text))
		if !ok {
			d = -1
		}
		if d != want {
			t.Errorf("%q: %v, want %v", text, d, want)
		}
	}
	if i := newIdling(); i.known() {
		defer i.close()
		if i.time() == 0 || !i.known() {
			t.Error("this machine's own is not understood")
		}
	}
}

// TestProcessorsAreGivenBack: GOMAXPROCS is what it was when the engine ends.
func TestProcessorsAreGivenBack(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	p := processors{most: before, use: 1}
	go func() { done <- p.scale(ctx) }()
	wait := time.NewTimer(2 * processorsInterval)
	<-wait.C
	cancel()
	<-done
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("GOMAXPROCS is %d, was %d", got, before)
	}
}
