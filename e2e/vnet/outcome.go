package vnet

// Outcome is what became of a datagram.
type Outcome uint8

// The outcomes. All but the first two are losses.
const (
	InFlight Outcome = iota
	Delivered
	LostOnLink    // Impairment.Loss
	LinkDown      // Impairment.Down
	LinkQueueFull // Impairment.Queue
	LinkTooBig    // Impairment.MTU
	NoCarrier     // a NIC was unplugged
	NoRoute       // nobody has the address
	NoSocket      // nobody listens on the port
	SocketFull    // the receiver does not read
	RuleDropped   // a fault rule
	NATNoMapping  // nothing was sent from inside
	NATFiltered   // a mapping exists, but not for this remote
	NATNoHairpin  // to the NAT's own outside address from its inside
	NATExhausted  // no free port
	outcomes      // how many there are
)

var outcomeNames = [outcomes]string{
	"in flight", "delivered", "lost", "link down", "queue full", "too big", "no carrier", "no route",
	"no socket", "socket full", "rule", "no NAT mapping", "filtered by NAT", "no hairpin", "NAT exhausted",
}

// String names the outcome in a word or three.
func (o Outcome) String() string {
	if o < outcomes {
		return outcomeNames[o]
	}
	return "unknown"
}

// outcome translates a Shaper's word.
func (f Fate) outcome() Outcome {
	switch f {
	case Arrives:
		return Delivered
	case Blackholed:
		return LinkDown
	case TooBig:
		return LinkTooBig
	case QueueFull:
		return LinkQueueFull
	case Lost:
		return LostOnLink
	}
	return LostOnLink
}
