package flow

import "patronus/netstack/packet"

// State is how far a conversation has come. TCP has the states of RFC 9293,
// 3.3.2, as far as one can tell in the middle of the path; other protocols are
// one way until an answer was seen.
type State uint8

// The states.
const (
	OneWay      State = iota // not TCP: no answer yet
	TwoWay                   // not TCP: packets in both directions
	SynSent                  // the originator's SYN
	SynReceived              // the responder's SYN
	Established              // the handshake is complete, or both sides of an adopted flow were seen
	FinWait                  // one side has sent its FIN
	Closing                  // both sides have
	Closed                   // the last acknowledgement, or a reset
	Adopted                  // TCP picked up in the middle, one side seen

	states = int(Adopted) + 1
)

var stateNames = [states]string{"one-way", "two-way", "syn-sent", "syn-received", "established", "fin-wait", "closing", "closed", "adopted"}

func (s State) String() string {
	if int(s) < states {
		return stateNames[s]
	}
	return "unknown"
}

const (
	fin = packet.FlagFIN
	syn = packet.FlagSYN
	rst = packet.FlagRST
	ack = packet.FlagACK
)

// The flow's state word: the State in the low byte, and what goes with it.
const (
	stateMask  uint32 = 0xff
	finReverse uint32 = 1 << (8 + iota) // the responder sent the first FIN
	replied                             // a packet from the responder was seen
	started                             // Started was reported
	ended                               // the table has dropped the flow
)

// firstState is the state after a conversation's first seen packet.
func firstState(proto, flags uint8) uint32 {
	switch {
	case proto != packet.TCP:
		return uint32(OneWay)
	case flags&(syn|ack|rst) == syn:
		return uint32(SynSent)
	default:
		return advance(uint32(Adopted), true, flags)
	}
}

// settled reports that a packet with these flags changes nothing in w: the
// quick answer for nearly every packet.
func settled(w uint32, forward bool, flags uint8) bool {
	s := State(w & stateMask)
	return s == Established && flags&(fin|rst) == 0 && (forward || w&replied != 0) || s == TwoWay
}

// advance is the state word after a run of packets in one direction whose TCP
// flags, or-ed together, are flags. There is no sequence number to check: a
// forged FIN or RST shortens the flow's idle time-out and nothing else, since
// packets keep passing, and keep it alive, in every state.
func advance(w uint32, forward bool, flags uint8) uint32 {
	if !forward {
		w |= replied
	}
	s := State(w & stateMask)
	if s <= TwoWay {
		if forward {
			return w
		}
		return to(w, TwoWay)
	}
	if flags&rst != 0 {
		return to(w, Closed)
	}
	switch {
	case s == SynSent:
		if !forward && flags&syn != 0 { // without ACK: simultaneous open (RFC 9293, 3.5)
			return to(w, SynReceived)
		}
		return w
	case s == SynReceived:
		if !forward || flags&(syn|ack) != ack {
			return w
		}
		s, w = Established, to(w, Established)
	case s == Adopted:
		if !forward && flags&(syn|ack) == ack {
			s, w = Established, to(w, Established)
		}
	case s == Closing:
		// The acknowledgement of the second FIN comes from who sent the first.
		if flags&(syn|fin|ack) == ack && forward == (w&finReverse == 0) {
			return to(w, Closed)
		}
		return w
	}
	if flags&(syn|fin) != fin {
		return w
	}
	switch {
	case s == Established || s == Adopted:
		if !forward {
			w |= finReverse
		}
		return to(w, FinWait)
	case s == FinWait && forward != (w&finReverse == 0):
		return to(w, Closing)
	}
	return w
}

func to(w uint32, s State) uint32 { return w&^stateMask | uint32(s) }

// worth orders flows under pressure: who has the least goes first.
type worth uint8

const (
	spent       worth = iota // closed: nothing more is expected
	tentative                // one-way, half-open or a ping: what a scan makes
	established              // both sides have agreed to talk
)

func worthOf(w uint32, proto uint8) worth {
	switch s := State(w & stateMask); {
	case s == Closed:
		return spent
	case (s == Established || s == FinWait) && w&replied != 0, s == TwoWay && !icmp(proto):
		return established
	}
	return tentative
}

func icmp(proto uint8) bool { return proto == packet.ICMP || proto == packet.ICMPv6 }
