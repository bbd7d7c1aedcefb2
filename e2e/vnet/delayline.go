package vnet

import (
	"context"
	"sync"
	"time"
)

// DelayLine is where packets between real sockets wait for their time. Its task
// is one goroutine with one timer, however many packets wait.
//
// Each packet carries the shapers it has still to pass; they are asked one after
// the other at the times at which the packet is there, so that links shared by
// several paths see their packets in order.
type DelayLine struct {
	limit int

	mu      sync.Mutex
	heap    []*Flight
	seq     uint64
	bytes   int
	next    time.Time // what the task's timer is set to; zero: nothing
	wake    chan struct{}
	dropped uint64
	free    []*Flight
}

// Output takes packets whose time has come, in order, from the DelayLine's task
// or from the caller of Enter. borrowed: bytes are valid until it returns.
type Output interface {
	Emit(packets [][]byte)
}

// Flight is a packet in a DelayLine.
type Flight struct {
	at      time.Time
	seq     uint64
	data    []byte
	size    int
	shapers []*Shaper
	out     *Lane
}

// Lane is one direction between two ends of a DelayLine: the shapers in the
// order in which a packet meets them, and what takes it in the end.
type Lane struct {
	line    *DelayLine
	shapers []*Shaper
	out     Output
	waiting int // flights, guarded by line.mu
}

// NewDelayLine returns a line that holds at most limit bytes of packets; what
// is more is dropped and counted.
func NewDelayLine(limit int) *DelayLine {
	return &DelayLine{limit: limit, wake: make(chan struct{}, 1)}
}

// Lane adds a direction.
func (l *DelayLine) Lane(out Output, shapers ...*Shaper) *Lane {
	return &Lane{line: l, shapers: shapers, out: out}
}

// Dropped is how many packets did not fit the line's memory.
func (l *DelayLine) Dropped() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

// Enter offers packets that arrived at now; overhead is added to the length of
// each to get the size that shapers see. What nothing holds is emitted, uncopied,
// before it returns. borrowed: packets. At most one goroutine may call it per Lane.
func (a *Lane) Enter(packets [][]byte, overhead int, now time.Time) {
	l := a.line
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.waiting == 0 {
		packets = a.through(packets, overhead, now)
	}
	for _, p := range packets {
		l.offer(p, len(p)+overhead, a, now)
	}
}

// through emits packets up to the first that is held, and returns those behind
// it. The mutex is free while it emits, and nothing waits then: so the task
// neither emits to the same Output meanwhile nor lets anything overtake.
func (a *Lane) through(packets [][]byte, overhead int, now time.Time) (rest [][]byte) {
	start := 0
	emit := func(end int) {
		if end > start {
			a.line.mu.Unlock()
			a.out.Emit(packets[start:end])
			a.line.mu.Lock()
		}
		start = end + 1
	}
	for i, p := range packets {
		size := len(p) + overhead
		at, n := a.straight(size, now)
		if n == 1 && at.passed == len(a.shapers) && !at.times[0].After(now) {
			continue
		}
		emit(i)
		for _, t := range at.times[:n] {
			a.line.push(t, p, size, a.shapers[at.passed:], a)
		}
		if n > 0 {
			return packets[i+1:]
		}
	}
	emit(len(packets))
	return nil
}

// stop is where a packet was held, and until when.
type stop struct {
	times  [2]time.Time
	passed int
}

// straight runs a packet through the lane's shapers as far as none holds it.
func (a *Lane) straight(size int, now time.Time) (s stop, n int) {
	s.times[0], n = now, 1
	for i, sh := range a.shapers {
		s.passed = i + 1
		s.times, n = sh.Plan(size, now)
		if n != 1 || s.times[0].After(now) {
			break
		}
	}
	return s, n
}

// offer asks the first shaper and schedules what it answers.
func (l *DelayLine) offer(p []byte, size int, a *Lane, now time.Time) {
	if len(a.shapers) == 0 {
		l.push(now, p, size, nil, a)
		return
	}
	at, n := a.shapers[0].Plan(size, now)
	for _, t := range at[:n] {
		l.push(t, p, size, a.shapers[1:], a)
	}
}

// push copies the packet into the heap; the caller holds l.mu.
func (l *DelayLine) push(at time.Time, p []byte, size int, rest []*Shaper, a *Lane) {
	if l.bytes+len(p) > l.limit {
		l.dropped++
		return
	}
	var f *Flight
	if k := len(l.free); k > 0 {
		f, l.free = l.free[k-1], l.free[:k-1]
	} else {
		f = new(Flight)
	}
	l.seq++
	*f = Flight{at: at, seq: l.seq, data: append(f.data[:0], p...), size: size, shapers: rest, out: a}
	l.bytes += len(p)
	a.waiting++
	l.insert(f)
	if l.next.IsZero() || at.Before(l.next) {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// Run delivers until ctx ends, and then returns nil; what waits is forgotten.
func (l *DelayLine) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var batch []*Flight
	var packets [][]byte
	for {
		var wait time.Duration
		batch, wait = l.due(batch[:0])
		for i := 0; i < len(batch); {
			to := batch[i].out
			packets = packets[:0]
			for ; i < len(batch) && batch[i].out == to; i++ {
				packets = append(packets, batch[i].data)
			}
			to.out.Emit(packets)
		}
		if len(batch) > 0 {
			l.release(batch)
			if ctx.Err() != nil {
				return nil
			}
			continue // more may have become due meanwhile
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		case <-timer.C:
		}
	}
}

// batchSize bounds what is emitted in one go.
const batchSize = 64

// due moves packets on and returns those at the end of their lane, or how long
// nothing will happen.
func (l *DelayLine) due(batch []*Flight) ([]*Flight, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for len(l.heap) > 0 && len(batch) < batchSize {
		f := l.heap[0]
		if f.at.After(now) {
			break
		}
		l.remove()
		if len(f.shapers) == 0 {
			batch = append(batch, f)
			continue
		}
		// The next link sees it at its own time, however late the machine is.
		at, n := f.shapers[0].Plan(f.size, f.at)
		if n == 0 {
			l.recycle(f)
			continue
		}
		f.shapers = f.shapers[1:]
		if n == 2 {
			l.push(at[1], f.data, f.size, f.shapers, f.out)
		}
		l.seq++
		f.at, f.seq = at[0], l.seq
		l.insert(f)
	}
	l.next = time.Time{}
	if len(l.heap) == 0 {
		return batch, time.Hour
	}
	l.next = l.heap[0].at
	return batch, l.next.Sub(now)
}

// release takes flights back once they were emitted. Until then they count as
// waiting, so that nothing overtakes them.
func (l *DelayLine) release(batch []*Flight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range batch {
		l.recycle(f)
	}
}

func (l *DelayLine) recycle(f *Flight) {
	f.out.waiting--
	l.bytes -= len(f.data)
	f.out, f.shapers = nil, nil
	if len(l.free) < 4096 {
		l.free = append(l.free, f)
	}
}

func (f *Flight) before(g *Flight) bool {
	if c := f.at.Compare(g.at); c != 0 {
		return c < 0
	}
	return f.seq < g.seq
}

// insert and remove are a binary heap without container/heap's interfaces,
// which cost an allocation and two dynamic calls per packet here.
func (l *DelayLine) insert(f *Flight) {
	l.heap = append(l.heap, f)
	for i := len(l.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !l.heap[i].before(l.heap[up]) {
			return
		}
		l.heap[i], l.heap[up] = l.heap[up], l.heap[i]
		i = up
	}
}

func (l *DelayLine) remove() {
	last := len(l.heap) - 1
	l.heap[0], l.heap[last] = l.heap[last], nil
	l.heap = l.heap[:last]
	for i := 0; ; {
		least := i
		for _, c := range [2]int{2*i + 1, 2*i + 2} {
			if c < last && l.heap[c].before(l.heap[least]) {
				least = c
			}
		}
		if least == i {
			return
		}
		l.heap[i], l.heap[least] = l.heap[least], l.heap[i]
		i = least
	}
}
