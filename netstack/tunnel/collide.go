package tunnel

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

const (
	// crossWithin is the round trip up to which handshakes are seen to cross, ns.
	crossWithin = int64(500e6)
	// settleWithin is how long a device may take over a handshake message, ns.
	settleWithin = int64(100e6)
	// repeatFirst is when an unanswered initiation is sent again; twice as long
	// passes before the last time, and then the device makes a new one.
	repeatFirst = 300 * time.Millisecond
	repeatMax   = 2
	// exchangesMax bounds the endpoints that are remembered.
	exchangesMax = 1024
	// never lies long before any Options.Now.
	never = -int64(time.Hour)
)

type ephemeral [device.NoisePublicKeySize]byte

// ephemeralOf reads the key from an initiation (WireGuard paper 5.4.2).
func ephemeralOf(initiation []byte) ephemeral {
	return ephemeral(initiation[8:][:device.NoisePublicKeySize])
}

// exchanges settles what wireguard-go leaves to a timer of 5 s when both sides
// of a path initiate at once, as they do when a whole fabric starts, or when a
// handshake message is lost.
//
// Each side would take the other's initiation, give up its own, and ignore the
// response to it. Both see both messages, so both can tell which ephemeral key
// is the smaller one: that initiation stays, and its sender does not take the
// other. And because wireguard-go works on several handshake messages of one
// peer at once, and can then bind a session to the index of another handshake
// (it sends, but drops all that it is sent, for 15 s), a message that crosses
// another which the device has only just got is held, or not passed on.
//
// Messages are repeated as they are: a peer that has already taken an
// initiation refuses it by its timestamp (5.4.2), if it is not one of ours,
// which repeats its response.
type exchanges struct {
	now    func() int64 // Options.Now
	mu     sync.Mutex
	m      map[string]*exchange // by endpoint
	closed bool
}

// exchange is what passed lately between us and one endpoint. Times are of
// Options.Now.
type exchange struct {
	sentAt     int64 // our initiation
	sent       ephemeral
	tookAt     int64 // theirs was given to the device
	took       ephemeral
	answeredAt int64 // our response
	answered   ephemeral
	response   []byte
	responseAt int64       // theirs was given to the device
	timer      *time.Timer // sends our initiation again, or for the first time
}

// at finds or makes the exchange with an endpoint. The caller holds mu.
func (x *exchanges) at(endpoint string) *exchange {
	e := x.m[endpoint]
	if e == nil {
		if x.m == nil || len(x.m) >= exchangesMax {
			x.forget()
			x.m = make(map[string]*exchange)
		}
		e = &exchange{sentAt: never, tookAt: never, answeredAt: never, responseAt: never}
		x.m[endpoint] = e
	}
	return e
}

// forget stops all timers. The caller holds mu.
func (x *exchanges) forget() {
	for _, e := range x.m {
		e.stop()
	}
}

// close stops all that is still to be sent.
func (x *exchanges) close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	x.forget()
}

func (e *exchange) stop() {
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
}

// within reports whether at lies less than d before now.
func within(at, now, d int64) bool { return now-at < d }

// sends is asked about an initiation of ours: whether it goes out now. It is
// not needed if we have just answered theirs, and waits while the device may
// still be about to. resend sends a copy later; it is not called any more once
// the exchange went on or x was closed.
func (x *exchanges) sends(initiation []byte, to string, resend func(copy []byte)) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	e, now := x.at(to), x.now()
	if within(e.answeredAt, now, crossWithin) {
		return false
	}
	e.stop()
	if x.closed {
		return true
	}
	held := within(e.tookAt, now, settleWithin)
	e.sentAt, e.sent = now, ephemeralOf(initiation)
	kept := slices.Clone(initiation)
	after, left := repeatFirst, repeatMax
	if held {
		after, left = time.Duration(settleWithin), repeatMax+1
	}
	var timer *time.Timer
	timer = time.AfterFunc(after, func() {
		x.mu.Lock()
		if e.timer != timer {
			x.mu.Unlock()
			return
		}
		now := x.now()
		if within(e.tookAt, now, settleWithin) {
			timer.Reset(time.Duration(settleWithin))
			x.mu.Unlock()
			return
		}
		e.sentAt = now
		if left--; left > 0 {
			after = max(after*2, repeatFirst)
			timer.Reset(after)
		} else {
			e.timer = nil
		}
		x.mu.Unlock()
		resend(kept)
	})
	e.timer = timer
	return !held
}

// answers notes our response to an endpoint.
func (x *exchanges) answers(response []byte, to string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.at(to)
	e.stop()
	e.answeredAt, e.answered = x.now(), e.took
	e.response = append(e.response[:0], response...)
}

// completes notes a response of theirs that the device gets.
func (x *exchanges) completes(from string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.at(from)
	e.stop()
	e.responseAt = x.now()
}

// takes is asked about an initiation of theirs: whether the device gets it. If
// not, what was answered to it before may have to be sent again.
func (x *exchanges) takes(initiation []byte, from string) (ok bool, again []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e, theirs, now := x.at(from), ephemeralOf(initiation), x.now()
	switch {
	case e.response != nil && theirs == e.answered:
		return false, slices.Clone(e.response)
	case within(e.responseAt, now, settleWithin):
		// Once only, here and below: if ours came to nothing, their next is taken.
		e.responseAt = never
		return false, nil
	case within(e.sentAt, now, crossWithin) && bytes.Compare(e.sent[:], theirs[:]) < 0:
		e.sentAt = never
		return false, nil
	}
	e.tookAt, e.took = now, theirs
	return true, nil
}

// resend is how an exchange's timer sends.
func (m *meter) resend(ep conn.Endpoint) func([]byte) {
	return func(initiation []byte) {
		m.count.repeated.Add(1)
		if m.Bind.Send([][]byte{initiation}, ep) != nil {
			m.count.sendErrors.Add(1)
		}
	}
}
