package auth

import (
	"container/list"
	"fmt"
	"sync"
	"time"
)

// Of failed tries with one key: the first few cost nothing, each one after
// that doubles the wait.
const (
	accountTries = 5  // of one account from one address
	addressTries = 50 // from one address, which may be an office's
	longestWait  = 5 * time.Minute
	forgetAfter  = time.Hour
	maxThrottled = 20_000 // keys that are remembered
)

// ThrottledError says how long to wait before the next try.
type ThrottledError struct{ Wait time.Duration }

func (e *ThrottledError) Error() string {
	return fmt.Sprintf("too many tries: wait %s", e.Wait.Round(time.Second))
}

// Is makes a ThrottledError an [ErrThrottled].
func (e *ThrottledError) Is(target error) bool { return target == ErrThrottled }

// tryKey is what tries are counted by.
type tryKey struct {
	name string
	free int // tries that cost nothing
}

func loginKeys(user, addr string) (account, address tryKey) {
	return tryKey{"account/" + user + "@" + addr, accountTries}, tryKey{"address/" + addr, addressTries}
}

// throttle slows guessing down. Keys are an account seen from one address, and
// an address: a stranger who guesses does not lock the owner out, who comes
// from somewhere else. The least recently used keys go first.
type throttle struct {
	mu    sync.Mutex
	byKey map[string]*list.Element
	used  *list.List // of *tries, newest first
}

type tries struct {
	key    string
	failed int
	until  time.Time
	last   time.Time
}

func newThrottle() *throttle {
	return &throttle{byKey: map[string]*list.Element{}, used: list.New()}
}

// begin takes a try for each key, before it is known whether it will fail:
// many at once get no more than one after the other. It fails if one of the
// keys has to wait, and takes nothing then.
func (t *throttle) begin(now time.Time, keys ...tryKey) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range keys {
		if e := t.byKey[k.name]; e != nil {
			if wait := e.Value.(*tries).until.Sub(now); wait > 0 {
				return &ThrottledError{Wait: wait}
			}
		}
	}
	for _, k := range keys {
		e := t.byKey[k.name]
		if e == nil {
			e = t.used.PushFront(&tries{key: k.name})
			t.byKey[k.name] = e
		}
		t.used.MoveToFront(e)
		n := e.Value.(*tries)
		if now.Sub(n.last) > forgetAfter {
			n.failed = 0
		}
		n.failed++
		n.last = now
		if over := n.failed - k.free; over >= 0 {
			n.until = now.Add(min(longestWait, time.Second<<min(over, 20)))
		}
	}
	for t.used.Len() > maxThrottled {
		oldest := t.used.Back()
		delete(t.byKey, t.used.Remove(oldest).(*tries).key)
	}
	return nil
}

// succeed forgets the tries of an account and gives back the one of its
// address, whose other tries somebody else may have made.
func (t *throttle) succeed(account, address tryKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.byKey[account.name]; e != nil {
		t.used.Remove(e)
		delete(t.byKey, account.name)
	}
	if e := t.byKey[address.name]; e != nil && e.Value.(*tries).failed > 0 {
		e.Value.(*tries).failed--
	}
}
