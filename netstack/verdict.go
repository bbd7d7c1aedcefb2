package netstack

import "sync/atomic"

// Verdict is what the engine did with a packet. A dropped packet is a verdict
// with a reason, never an error.
type Verdict uint8

// The verdicts.
const (
	Forward Verdict = iota // sent on, through a tunnel or to a LAN port
	Deliver                // taken by the appliance itself
	Drop
	Reject // dropped, and the sender was told so
)

// Reason says why a packet was dropped or rejected.
type Reason uint8

// The reasons, in the order in which a packet can meet them.
const (
	NoReason     Reason = iota
	Malformed           // packet.Decode refused it
	Martian             // a multicast or broadcast destination: nothing to forward to
	Spoofed             // the source does not belong where the packet came from
	Misdelivered        // the outer header names a path that is not this tunnel's
	FragmentLost        // a later fragment whose first fragment was not seen
	Denied              // a policy said no
	NoRoute             // no route to the destination
	NoPath              // a route, but no path of the site is usable
	TTLExpired          // and the sender was told so
	TooBig              // larger than the path's MTU, and not to be fragmented
	QueueFull           // the tunnel's queue in front of encryption is full
	NoSession           // waited too long for a WireGuard session
	NoNeighbour         // the next hop on the LAN does not answer
	LANFull             // the LAN port took no more
	numReasons          // last
)

var reasonNames = [numReasons]string{
	"none", "malformed", "martian", "spoofed", "misdelivered", "fragment-lost", "denied",
	"no-route", "no-path", "ttl-expired", "too-big", "queue-full", "no-session", "no-neighbour",
	"lan-full",
}

// String is the name used in metrics and tables.
func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return "unknown"
}

// Direction is where a packet was going when its verdict fell.
type Direction uint8

// The directions.
const (
	ToWAN Direction = iota
	FromWAN
	numDirections
)

// String is the name used in metrics and tables.
func (d Direction) String() string {
	if d == ToWAN {
		return "to_wan"
	}
	return "from_wan"
}

// counters count verdicts. One line of cache per direction, so that the two
// directions do not share one.
type counters struct {
	dir [numDirections]struct {
		forwarded, delivered atomic.Uint64
		answered             atomic.Uint64
		bytes                atomic.Uint64
		dropped              [numReasons]atomic.Uint64
		_                    [64]byte
	}
}

func (c *counters) drop(d Direction, r Reason, n int) {
	c.dir[d].dropped[r].Add(uint64(n))
}

func (c *counters) forward(d Direction, packets, bytes int) {
	c.dir[d].forwarded.Add(uint64(packets))
	c.dir[d].bytes.Add(uint64(bytes))
}

// DirectionCounters is a copy of what was counted in one direction.
type DirectionCounters struct {
	Forwarded uint64 `json:"forwarded"`
	Delivered uint64 `json:"delivered"`
	// Answered counts the ICMP errors and resets that we sent about packets of
	// this direction.
	Answered uint64            `json:"answered"`
	Bytes    uint64            `json:"bytes"`
	Dropped  map[string]uint64 `json:"dropped"`
}

// Counters is a copy of the engine's counters. Dropped holds reasons that
// occurred only.
type Counters struct {
	ToWAN   DirectionCounters `json:"to_wan"`
	FromWAN DirectionCounters `json:"from_wan"`
}

func (c *counters) snapshot() Counters {
	read := func(d Direction) DirectionCounters {
		s := &c.dir[d]
		out := DirectionCounters{
			Forwarded: s.forwarded.Load(), Delivered: s.delivered.Load(), Answered: s.answered.Load(), Bytes: s.bytes.Load(),
			Dropped: map[string]uint64{},
		}
		for r := NoReason + 1; r < numReasons; r++ {
			if n := s.dropped[r].Load(); n > 0 {
				out.Dropped[r.String()] = n
			}
		}
		return out
	}
	return Counters{ToWAN: read(ToWAN), FromWAN: read(FromWAN)}
}
