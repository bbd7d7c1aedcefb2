package dashboard

import (
	"container/list"
	"sync"
	"time"
)

// maxLimited is how many keys a limiter remembers; the least recently used go.
const maxLimited = 10_000

// limiter allows so many requests in each window that slides: exactly, since
// it keeps the time of each of them.
type limiter struct {
	most   int
	window time.Duration

	mu    sync.Mutex
	byKey map[string]*list.Element
	used  *list.List // of *budget, newest first
}

// budget is a ring of the last requests' times.
type budget struct {
	key  string
	ring []int64 // ns
	next int
}

func newLimiter(most int, window time.Duration) *limiter {
	return &limiter{most: most, window: window, byKey: map[string]*list.Element{}, used: list.New()}
}

// take counts a request. It answers how many are left, after how long the
// oldest one falls out of the window, and whether this one is within.
// Requests that are refused do not count.
func (l *limiter) take(key string, now time.Time) (left int, reset time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.byKey[key]
	if e == nil {
		e = l.used.PushFront(&budget{key: key})
		l.byKey[key] = e
		if l.used.Len() > maxLimited {
			delete(l.byKey, l.used.Remove(l.used.Back()).(*budget).key)
		}
	}
	l.used.MoveToFront(e)
	b := e.Value.(*budget)
	at, since := now.UnixNano(), now.Add(-l.window).UnixNano()
	if len(b.ring) < l.most {
		// The ring grows with use: most clients ask a few times.
		b.ring = append(b.ring, at)
		b.next = len(b.ring) % l.most
	} else if b.ring[b.next] <= since {
		b.ring[b.next] = at
		b.next = (b.next + 1) % l.most
	} else {
		return 0, time.Duration(b.ring[b.next] - since), false
	}
	oldest := at
	live := 0
	for _, t := range b.ring {
		if t > since {
			live++
			oldest = min(oldest, t)
		}
	}
	return l.most - live, time.Duration(oldest - since), true
}
