package simulate

import (
	"encoding/binary"

	"patronus/configs"
	"patronus/netstack/packet"
)

// Party is one end of a recorded flow as it was when the flow was decided: the
// label snapshot that a replay judges by. Without a namespace it was an address
// in no endpoint, which only address blocks match.
type Party struct {
	Site            string              `json:"site,omitempty"`
	Namespace       string              `json:"namespace,omitempty"`
	Name            string              `json:"name,omitempty"`
	Labels          map[string]string   `json:"labels,omitempty"`
	NamespaceLabels map[string]string   `json:"namespace_labels,omitempty"`
	Ports           []configs.NamedPort `json:"ports,omitempty"`
}

// Nowhere is the index of a party that is not known: an address in no endpoint.
const Nowhere = ^uint32(0)

// NoName is the index of no policy.
const NoName = ^uint32(0)

// Record is one recorded flow. Indexes refer to the dictionaries of the file or
// stream that it is in.
type Record struct {
	At              int64 // when it was decided, Unix ns
	Key             packet.Key
	From, To        uint32 // parties, or Nowhere
	Policy          uint32 // that decided, or NoName
	Rule            int32
	Allowed         bool
	Egress, Ingress bool // the ends that the recording appliance judged
	Packets, Bytes  uint64
}

// recordSize is a record's size in a file; FORMAT.md has the layout.
const recordSize = 80

// Bits of a record's flags.
const (
	bitAllowed = 1 << iota
	bitEgress
	bitIngress
	knownBits = bitAllowed | bitEgress | bitIngress
)

func (r *Record) encode(b []byte) {
	_ = b[recordSize-1]
	binary.LittleEndian.PutUint64(b[0:], uint64(r.At))
	copy(b[8:], r.Key.Src[:])
	copy(b[24:], r.Key.Dst[:])
	binary.LittleEndian.PutUint16(b[40:], r.Key.SrcPort)
	binary.LittleEndian.PutUint16(b[42:], r.Key.DstPort)
	b[44] = r.Key.Proto
	b[45] = bit(r.Allowed, bitAllowed) | bit(r.Egress, bitEgress) | bit(r.Ingress, bitIngress)
	b[46], b[47] = 0, 0
	binary.LittleEndian.PutUint32(b[48:], r.From)
	binary.LittleEndian.PutUint32(b[52:], r.To)
	binary.LittleEndian.PutUint32(b[56:], r.Policy)
	binary.LittleEndian.PutUint32(b[60:], uint32(r.Rule))
	binary.LittleEndian.PutUint64(b[64:], r.Packets)
	binary.LittleEndian.PutUint64(b[72:], r.Bytes)
}

func bit(on bool, b byte) byte {
	if on {
		return b
	}
	return 0
}

// decode reads a record. It is false for one that this version does not know.
func (r *Record) decode(b []byte) bool {
	_ = b[recordSize-1]
	r.At = int64(binary.LittleEndian.Uint64(b[0:]))
	r.Key.Src, r.Key.Dst = packet.Addr(b[8:24]), packet.Addr(b[24:40])
	r.Key.SrcPort, r.Key.DstPort = binary.LittleEndian.Uint16(b[40:]), binary.LittleEndian.Uint16(b[42:])
	r.Key.Proto = b[44]
	flags := b[45]
	r.Allowed, r.Egress, r.Ingress = flags&bitAllowed != 0, flags&bitEgress != 0, flags&bitIngress != 0
	r.From, r.To = binary.LittleEndian.Uint32(b[48:]), binary.LittleEndian.Uint32(b[52:])
	r.Policy, r.Rule = binary.LittleEndian.Uint32(b[56:]), int32(binary.LittleEndian.Uint32(b[60:]))
	r.Packets, r.Bytes = binary.LittleEndian.Uint64(b[64:]), binary.LittleEndian.Uint64(b[72:])
	return flags&^knownBits == 0 && b[46] == 0 && b[47] == 0
}
