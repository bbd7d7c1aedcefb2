package netstack

import (
	"context"
	"runtime"
	"testing"
	"time"
)

func TestProcessors(t *testing.T) {
	p := processors{most: 6, use: 1}
	look := func(busy float64, times, want int) {
		t.Helper()
		for range times {
			p.observe(busy)
		}
		if p.use != want {
			t.Fatalf("%d processors after %d looks at %.2f, want %d", p.use, times, busy, want)
		}
	}
	look(0.8, 1000, 1) // one is enough
	look(0.95, 1, 2)
	look(1.0, 1000, 2) // for what two are used for, one would be too few
	look(1.9, 1, 4)
	look(4, 1, 6) // all there are
	look(6, 10, 6)
	look(2.5, processorsCalm-1, 6) // not at once
	look(2.5, 1, 5)
	look(2.5, processorsCalm-1, 5)
	look(3.1, 1, 5) // a busy moment begins the count anew
	look(2.3, processorsCalm-1, 5)
	look(2.3, 1, 4)
	look(0, 3*processorsCalm, 1)
	look(0, 1000, 1)
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
