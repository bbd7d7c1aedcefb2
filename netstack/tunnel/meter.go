package tunnel

import (
	"encoding/binary"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"

	"patronus/configs"
)

// Counters are what was counted on the outside of a tunnel: messages by kind,
// and why others were not passed to the device. All are cumulative.
type Counters struct {
	// Received: valid in form, and passed on. Transport includes Keepalives.
	Initiations uint64 `json:"initiations"`
	Responses   uint64 `json:"responses"`
	Cookies     uint64 `json:"cookies"`
	Transport   uint64 `json:"transport"`
	Keepalives  uint64 `json:"keepalives"`
	// Refused before the device saw them: too short for any message; of no
	// known type; a handshake message of the wrong size; one whose MAC1 does
	// not name our key (WireGuard paper 5.4.4).
	Short       uint64 `json:"short"`
	UnknownType uint64 `json:"unknown_type"`
	BadSize     uint64 `json:"bad_size"`
	BadMAC1     uint64 `json:"bad_mac1"`
	// UnknownIndex are transport messages to a session that we do not have.
	// The device refuses them.
	UnknownIndex uint64 `json:"unknown_index"`
	// Collided are initiations that were not taken, because one of ours was on
	// its way to the same peer and goes first or was just answered, or because
	// they were repeats; and of ours that were not sent at once, because we had
	// one of the peer's in hand.
	Collided uint64 `json:"collided"`
	// Repeated are our initiations and responses that were sent again.
	Repeated uint64 `json:"repeated"`
	// SentHandshakes are initiations, responses and cookie replies.
	SentHandshakes uint64 `json:"sent_handshakes"`
	SentTransport  uint64 `json:"sent_transport"`
	SentKeepalives uint64 `json:"sent_keepalives"`
	// SendErrors are calls of Bind.Send that failed.
	SendErrors uint64 `json:"send_errors"`
}

type counters struct {
	initiations, responses, cookies, transport, keepalives atomic.Uint64
	short, unknownType, badSize, badMAC1, unknownIndex     atomic.Uint64
	collided, repeated                                     atomic.Uint64
	sentHandshakes, sentTransport, sentKeepalives          atomic.Uint64
	sendErrors                                             atomic.Uint64
}

// meter stands between the device and its Bind. It counts, gives the queue its
// credits back, and keeps junk from the device's handshake queue, where each
// message would hold a buffer of 64 KB.
type meter struct {
	conn.Bind
	t         *Tunnel
	checker   device.CookieChecker
	index     indexTable
	exchanges exchanges
	count     counters
}

func newMeter(t *Tunnel, bind conn.Bind, self configs.Key) *meter {
	m := &meter{Bind: bind, t: t}
	m.checker.Init(device.NoisePublicKey(self))
	m.index.init()
	m.exchanges.now = t.o.Now
	return m
}

// Open opens the Bind and puts the meter before its functions.
func (m *meter) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	fns, port, err := m.Bind.Open(port)
	for i, fn := range fns {
		fns[i] = func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
			n, err := fn(bufs, sizes, eps)
			m.received(bufs[:n], sizes[:n], eps[:n])
			return n, err
		}
	}
	return fns, port, err
}

// received counts a batch. What the device shall not see gets size 0, which it
// skips.
func (m *meter) received(bufs [][]byte, sizes []int, eps []conn.Endpoint) {
	var run tallyRun
	var unknown, transport, keepalives uint64
	for i, n := range sizes {
		b := bufs[i][:n]
		switch {
		case n == 0:
		case n < device.MinMessageSize:
			m.count.short.Add(1)
			sizes[i] = 0
		case binary.LittleEndian.Uint32(b) == device.MessageTransportType:
			transport++
			keep := n == device.MessageKeepaliveSize
			if keep {
				keepalives++
			}
			receiver := binary.LittleEndian.Uint32(b[4:])
			if run.at == nil || run.receiver != receiver {
				run.start(receiver, m.index.lookup(receiver))
			}
			if run.at == nil {
				unknown++
			} else if keep {
				run.keepalives++
			} else {
				run.received++
			}
		case !m.handshake(b, eps[i]):
			sizes[i] = 0
		}
	}
	run.flush()
	if transport > 0 {
		m.count.transport.Add(transport)
	}
	if keepalives > 0 {
		m.count.keepalives.Add(keepalives)
	}
	if unknown > 0 {
		m.count.unknownIndex.Add(unknown)
	}
}

// handshake counts b and reports whether the device shall see it.
func (m *meter) handshake(b []byte, from conn.Endpoint) bool {
	var size int
	var kind *atomic.Uint64
	switch binary.LittleEndian.Uint32(b) {
	case device.MessageInitiationType:
		size, kind = device.MessageInitiationSize, &m.count.initiations
	case device.MessageResponseType:
		size, kind = device.MessageResponseSize, &m.count.responses
	case device.MessageCookieReplyType:
		size, kind = device.MessageCookieReplySize, &m.count.cookies
	default:
		m.count.unknownType.Add(1)
		return false
	}
	if len(b) != size {
		m.count.badSize.Add(1)
		return false
	}
	// A cookie reply has no MAC; it is encrypted for one handshake of ours.
	if size != device.MessageCookieReplySize && !m.checker.CheckMAC1(b) {
		m.count.badMAC1.Add(1)
		return false
	}
	switch size {
	case device.MessageInitiationSize:
		ok, again := m.exchanges.takes(b, from.DstToString())
		if again != nil {
			m.resend(from)(again)
		}
		if !ok {
			m.count.collided.Add(1)
			return false
		}
	case device.MessageResponseSize:
		// Only one that can be meant for us ends the repeating.
		if m.index.lookup(binary.LittleEndian.Uint32(b[8:])) != nil {
			m.exchanges.completes(from.DstToString())
		}
	}
	kind.Add(1)
	return true
}

// Send passes on what the device has for one peer.
func (m *meter) Send(bufs [][]byte, ep conn.Endpoint) error {
	if len(bufs) == 0 || len(bufs[0]) < device.MinMessageSize {
		return m.Bind.Send(bufs, ep)
	}
	// All that is wanted of bufs is read first: a Bind may use their memory,
	// as upstream's does to join them.
	b, n := bufs[0], uint64(len(bufs))
	var p *Peer
	switch kind := binary.LittleEndian.Uint32(b); {
	case kind == device.MessageInitiationType || kind == device.MessageResponseType:
		m.index.register(binary.LittleEndian.Uint32(b[4:]))
		if kind == device.MessageResponseType {
			m.exchanges.answers(b, ep.DstToString())
		} else if !m.exchanges.sends(b, ep.DstToString(), m.resend(ep)) {
			m.count.collided.Add(1)
			return nil
		}
		m.count.sentHandshakes.Add(n)
	case kind != device.MessageTransportType:
		m.count.sentHandshakes.Add(n)
	case len(b) == device.MessageKeepaliveSize: // always alone
		m.count.sentKeepalives.Add(n)
	default:
		m.count.sentTransport.Add(n)
		if id, ok := readTag(b); ok {
			p = m.t.peerByID(id)
		}
	}
	err := m.Bind.Send(bufs, ep)
	if err != nil {
		m.count.sendErrors.Add(1)
	}
	if p != nil {
		m.t.queue.sent(p, int(n), m.t.o.Now())
	}
	return err
}

// Counters reads what was counted outside. It does not allocate.
func (t *Tunnel) Counters() Counters {
	c := &t.meter.count
	return Counters{
		Initiations: c.initiations.Load(), Responses: c.responses.Load(), Cookies: c.cookies.Load(),
		Transport: c.transport.Load(), Keepalives: c.keepalives.Load(),
		Short: c.short.Load(), UnknownType: c.unknownType.Load(), BadSize: c.badSize.Load(), BadMAC1: c.badMAC1.Load(),
		UnknownIndex: c.unknownIndex.Load(), Collided: c.collided.Load(), Repeated: c.repeated.Load(),
		SentHandshakes: c.sentHandshakes.Load(), SentTransport: c.sentTransport.Load(), SentKeepalives: c.sentKeepalives.Load(),
		SendErrors: c.sendErrors.Load(),
	}
}
