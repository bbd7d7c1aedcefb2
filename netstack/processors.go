package netstack

import (
	"context"
	"runtime"
	"syscall"
	"time"
)

const (
	// processorsInterval is how often the use of processors is looked at.
	processorsInterval = 50 * time.Millisecond
	// processorsCalm is for how many looks in a row fewer processors would have
	// been enough before one is given up.
	processorsCalm = 40
	// busyShare of the processors in use is when more are needed; spareShare of
	// one processor less is when that one less is enough.
	busyShare, spareShare = 0.85, 0.6
)

// processors decides how many processors the process may use at once. Each
// packet passes through half a dozen goroutines. On one processor they follow
// each other with the packet in the cache; on several each hand-over may wake
// an idle one, which costs more than the work that it takes over, as long as
// one processor is enough.
type processors struct {
	most int // what there are
	use  int
	calm int // looks in a row
}

// observe takes how many processors were busy on average since the last look,
// and returns how many to use.
func (p *processors) observe(busy float64) int {
	switch {
	case busy > busyShare*float64(p.use):
		p.use, p.calm = min(2*p.use, p.most), 0
	case p.use > 1 && busy < spareShare*float64(p.use-1):
		if p.calm++; p.calm >= processorsCalm {
			p.use, p.calm = p.use-1, 0
		}
	default:
		p.calm = 0
	}
	return p.use
}

// scale adapts GOMAXPROCS to the load until ctx ends.
func (p *processors) scale(ctx context.Context) error {
	tick := time.NewTicker(processorsInterval)
	defer tick.Stop()
	runtime.GOMAXPROCS(p.use)
	used, at := processTime(), time.Now()
	for {
		select {
		case <-ctx.Done():
			runtime.GOMAXPROCS(p.most)
			return ctx.Err()
		case <-tick.C:
		}
		u, now := processTime(), time.Now()
		was := p.use
		if use := p.observe(float64(u-used) / float64(now.Sub(at))); use != was {
			runtime.GOMAXPROCS(use)
		}
		used, at = u, now
	}
}

// processTime is the time that the process has been running on processors.
func processTime() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
