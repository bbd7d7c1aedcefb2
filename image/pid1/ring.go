package pid1

import (
	"bytes"
	"io"
	"sync"
)

// ringSize is how much of the log is kept in memory, bytes.
const ringSize = 256 << 10

// ring keeps the newest of what was logged. It is safe for concurrent use.
type ring struct {
	mu   sync.Mutex
	data []byte
	size int
}

func newRing(size int) *ring { return &ring{size: size} }

// Write implements io.Writer; it never fails.
func (r *ring) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data = append(r.data, b...)
	if len(r.data) > 2*r.size {
		cut := len(r.data) - r.size
		if i := bytes.IndexByte(r.data[cut:], '\n'); i >= 0 {
			cut += i + 1
		}
		r.data = append(r.data[:0], r.data[cut:]...)
	}
	return len(b), nil
}

// last are the newest n lines.
func (r *ring) last(n int) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := len(r.data)
	for at > 0 && n >= 0 {
		at = bytes.LastIndexByte(r.data[:at], '\n')
		if at < 0 {
			return bytes.Clone(r.data)
		}
		n--
	}
	return bytes.Clone(r.data[at+min(1, len(r.data)-at):])
}

// tee writes to the ring, and to the console as far as there is one.
type tee struct {
	ring    *ring
	console io.Writer
}

func (t tee) Write(b []byte) (int, error) {
	if t.console != nil {
		_, _ = t.console.Write(b) // a console that is gone loses lines, not the machine
	}
	return t.ring.Write(b)
}
