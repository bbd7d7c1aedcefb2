package dashboard

import "sync"

// busy is a set of things that are being done, each by one request at a time.
type busy struct {
	mu   sync.Mutex
	what map[string]bool
}

// enter reports whether nobody else is at it; leave must follow then.
func (b *busy) enter(what string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.what[what] {
		return false
	}
	if b.what == nil {
		b.what = map[string]bool{}
	}
	b.what[what] = true
	return true
}

func (b *busy) leave(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.what, what)
}
