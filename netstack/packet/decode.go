package packet

// Info is what the data path needs to know of a packet. It is a value without
// pointers, meant to be reused.
type Info struct {
	Key     Key
	Version uint8 // 4 or 6
	TOS     uint8 // the whole octet: DSCP<<2 | ECN
	TTL     uint8 // hop limit for IPv6
	Flags   uint8 // TCP flags, 0 for other protocols
	// L4 is the offset of the transport header, Payload that of what follows it.
	L4, Payload uint16
	// Length is the IP packet's own length; what follows it is link padding.
	Length uint32
	// Fragment state: First has ports, Later (offset > 0) has none.
	Fragment Fragment
	FragID   uint32
	ICMPType uint8
	ICMPCode uint8
}

// Fragment says which part of a datagram a packet is.
type Fragment uint8

// The parts.
const (
	Whole Fragment = iota
	FirstFragment
	LaterFragment
)

// Fault says why a packet could not be decoded; 0 means it could.
type Fault uint8
