package vnet

import "encoding/binary"

// Message is the kind of a WireGuard datagram, as an eavesdropper sees it
// (WireGuard white paper, section 5.4).
type Message uint8

// The kinds. Keepalive is a transport message with an empty packet inside.
const (
	AnyMessage Message = iota
	Initiation
	Response
	CookieReply
	Transport
	Keepalive
	NotWireGuard
)

// Sizes of the messages; a transport message is at least its header and tag.
const (
	initiationSize = 148
	responseSize   = 92
	cookieSize     = 64
	keepaliveSize  = 32
)

var messageNames = [...]string{"any", "initiation", "response", "cookie reply", "transport", "keepalive", "datagram"}

// String names the kind in lower case.
func (m Message) String() string {
	if int(m) < len(messageNames) {
		return messageNames[m]
	}
	return "unknown"
}

// MessageOf tells the kind of a UDP payload.
func MessageOf(b []byte) Message {
	if len(b) < 4 {
		return NotWireGuard
	}
	switch typ := binary.LittleEndian.Uint32(b); {
	case typ == 1 && len(b) == initiationSize:
		return Initiation
	case typ == 2 && len(b) == responseSize:
		return Response
	case typ == 3 && len(b) == cookieSize:
		return CookieReply
	case typ == 4 && len(b) == keepaliveSize:
		return Keepalive
	case typ == 4 && len(b) > keepaliveSize:
		return Transport
	}
	return NotWireGuard
}

// is reports whether a datagram of kind m is selected by want. A keepalive is a
// transport message too.
func (m Message) is(want Message) bool {
	return want == AnyMessage || m == want || want == Transport && m == Keepalive
}
