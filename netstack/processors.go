package netstack

import (
	"bytes"
	"context"
	"math"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

const (
	// processorsInterval is how often the use of processors is looked at.
	processorsInterval = 50 * time.Millisecond
	// processorsPress is for how many looks in a row one more must be wanted.
	processorsPress = 2
	// processorsCalm is for how many looks in a row fewer processors would have
	// been enough before one is given up.
	processorsCalm = 40
	// busyShare of the processors in use is when more are needed; spareShare of
	// one processor less is when that one less is enough.
	busyShare, spareShare = 0.85, 0.6
	// idleEnough of a processor must be idle for one more to be of use, and with
	// less than idleLost beyond one less the last one brings nothing.
	idleEnough, idleLost = 0.3, 0.2
)

// processors decides how many processors the process may use at once. Each
// packet passes through half a dozen goroutines. On one processor they follow
// each other with the packet in the cache; on several each hand-over may wake
// an idle one, which costs more than the work that it takes over, as long as
// one processor is enough, or as others leave no more than one.
type processors struct {
	most  int // what there are
	use   int
	calm  int // looks in a row
	press int // looks in a row
}

// observe takes how many processors were busy with this process and how many
// were idle on average since the last look, and returns how many to use.
func (p *processors) observe(busy, idle float64) int {
	switch {
	case busy > busyShare*float64(p.use) && idle > idleEnough && p.use < p.most:
		p.calm = 0
		if p.press++; p.press >= processorsPress {
			// As many as there is work and room for.
			p.use, p.press = min(2*p.use, p.most, p.use+int(math.Ceil(idle))), 0
		}
	case p.use > 1 && (busy < spareShare*float64(p.use-1) || busy+idle < float64(p.use-1)+idleLost):
		p.press = 0
		if p.calm++; p.calm >= processorsCalm {
			p.use, p.calm = p.use-1, 0
		}
	default:
		p.calm, p.press = 0, 0
	}
	return p.use
}

// scale adapts GOMAXPROCS to the load until ctx ends.
func (p *processors) scale(ctx context.Context) error {
	tick := time.NewTicker(processorsInterval)
	defer tick.Stop()
	runtime.GOMAXPROCS(p.use)
	idling := newIdling()
	defer idling.close()
	used, idled, at := processTime(), idling.time(), time.Now()
	for {
		select {
		case <-ctx.Done():
			runtime.GOMAXPROCS(p.most)
			return ctx.Err()
		case <-tick.C:
		}
		u, i, now := processTime(), idling.time(), time.Now()
		was, passed := p.use, float64(now.Sub(at))
		busy, idle := float64(u-used)/passed, float64(i-idled)/passed
		if !idling.known() {
			idle = float64(p.most)
		}
		if use := p.observe(busy, idle); use != was {
			runtime.GOMAXPROCS(use)
		}
		used, idled, at = u, i, now
	}
}

// idling tells how long the machine's processors were idle, summed over all of
// them, by /proc/uptime (proc(5)).
type idling struct {
	file *os.File // nil: not known here
	text [64]byte
}

func newIdling() *idling {
	f, err := os.Open("/proc/uptime")
	if err != nil {
		return &idling{}
	}
	return &idling{file: f}
}

func (i *idling) known() bool { return i.file != nil }

func (i *idling) close() {
	if i.file != nil {
		i.file.Close()
	}
}

// time is 0 where it is not known. Its resolution is 10 ms.
func (i *idling) time() time.Duration {
	if i.file == nil {
		return 0
	}
	n, _ := i.file.ReadAt(i.text[:], 0)
	d, ok := parseIdle(i.text[:n])
	if !ok {
		i.close()
		i.file = nil
	}
	return d
}

// parseIdle reads the second of the two numbers of /proc/uptime, in seconds
// with two decimals.
func parseIdle(text []byte) (time.Duration, bool) {
	_, rest, ok := bytes.Cut(bytes.TrimSpace(text), []byte(" "))
	whole, hundredths, dot := bytes.Cut(rest, []byte("."))
	if !ok || !dot || len(hundredths) != 2 {
		return 0, false
	}
	s, err := strconv.ParseUint(string(whole), 10, 40)
	h, err2 := strconv.ParseUint(string(hundredths), 10, 7)
	if err != nil || err2 != nil || s > math.MaxInt64/2/uint64(time.Second) {
		return 0, false
	}
	return time.Duration(s)*time.Second + time.Duration(h)*(time.Second/100), true
}

// processTime is the time that the process has been running on processors.
func processTime() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
