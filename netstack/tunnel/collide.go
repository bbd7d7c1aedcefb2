package tunnel

import (
	"bytes"
	"sync"

	"golang.zx2c4.com/wireguard/device"
)

const (
	// collideWithin is the round trip up to which a collision is noticed, ns.
	collideWithin = int64(500e6)
	// pendingMax bounds the initiations that are remembered.
	pendingMax = 1024
)

// collisions settles who answers when both sides of a path initiate at once,
// as they do when a whole fabric starts. Each would take the other's
// initiation, give up its own, and ignore the response to it, until one of
// them tries again after 5 s. Both see both messages, so both can tell which
// ephemeral key is the smaller one: that initiation stays, and its sender does
// not take the other.
type collisions struct {
	mu       sync.Mutex
	pending  map[string]pending // by endpoint
	answered map[string]int64   // by endpoint: when we last sent a response
}

type pending struct {
	at        int64 // Options.Now
	ephemeral [device.NoisePublicKeySize]byte
}

// ephemeralOf reads the key from an initiation (WireGuard paper 5.4.2).
func ephemeralOf(initiation []byte) []byte { return initiation[8:][:device.NoisePublicKeySize] }

// sent notes our initiation to an endpoint.
func (c *collisions) sent(initiation []byte, to string, now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending == nil || len(c.pending) >= pendingMax {
		c.pending = make(map[string]pending)
	}
	c.pending[to] = pending{now, [device.NoisePublicKeySize]byte(ephemeralOf(initiation))}
}

// responded notes our response to an endpoint.
func (c *collisions) responded(to string, now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answered == nil || len(c.answered) >= pendingMax {
		c.answered = make(map[string]int64)
	}
	c.answered[to] = now
}

// needless reports whether an initiation to an endpoint would cross a session
// that we have just answered for, and that the other side is about to confirm.
// The device wants one all the same, since it may not send before. If it gets
// through while the other side takes our response in, wireguard-go can bind the
// new session to the index of the other handshake: it then sends, but drops all
// that it is sent, until it notices after 15 s.
func (c *collisions) needless(to string, now int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.answered[to]
	return ok && now-at < collideWithin
}

// wins reports whether ours is to be kept instead of this one from the same
// endpoint.
func (c *collisions) wins(initiation []byte, from string, now int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.pending[from]
	if !ok {
		return false
	}
	// Once only: if ours was lost, their next one is taken.
	delete(c.pending, from)
	return now-p.at < collideWithin && bytes.Compare(p.ephemeral[:], ephemeralOf(initiation)) < 0
}
