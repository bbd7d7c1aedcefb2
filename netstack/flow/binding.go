package flow

// Binding is what the engine decided for a flow, packed into one word so that
// the data path learns with one atomic load whether it still holds:
//
//	63         44 43     40 39      32 31        16 15         0
//	| rules (20) | verdict | class (8) | path (16) | steer (16) |
//
// Rules and Steer are the low bits of rising numbers. A flow that sees no
// packet while its number goes round exactly once would be taken for current:
// for the rules that needs 2^20 changes within the flow's idle time-out (2 h at
// 145 changes a second), for steering 2^16 (2 h at 9 a second), to the very
// number. The zero Binding means that nothing was decided yet.
type Binding uint64

// Widths of the numbers that wrap around, as masks.
const (
	RulesMask   = 1<<20 - 1
	SteerMask   = 1<<16 - 1
	VerdictMask = 1<<4 - 1
)

// NoPath is the path of a flow that has none: denied, delivered locally, or
// between two LAN ports.
const NoPath = 1<<16 - 1

// NewBinding packs a decision. rules keeps its low 20 bits, steer its low 16,
// verdict its low 4; a verdict is not 0.
func NewBinding(rules uint32, verdict, class uint8, path uint16, steer uint32) Binding {
	return Binding(rules&RulesMask)<<44 | Binding(verdict&VerdictMask)<<40 |
		Binding(class)<<32 | Binding(path)<<16 | Binding(steer&SteerMask)
}

// Rules is the version of the rules that judged the flow, its low 20 bits.
func (b Binding) Rules() uint32 { return uint32(b >> 44) }

// Verdict is what becomes of the flow's packets, in the engine's numbering.
func (b Binding) Verdict() uint8 { return uint8(b>>40) & VerdictMask }

// Class is the traffic class.
func (b Binding) Class() uint8 { return uint8(b >> 32) }

// Path is the index of the path, or [NoPath].
func (b Binding) Path() uint16 { return uint16(b >> 16) }

// Steer is the generation of the path states under which the path was chosen,
// its low 16 bits.
func (b Binding) Steer() uint32 { return uint32(b & SteerMask) }

// Judged reports whether b was decided by these rules; false for the zero Binding.
func (b Binding) Judged(rules uint32) bool {
	return b != 0 && b.Rules() == rules&RulesMask
}

// Current reports whether b was decided by these rules and in this generation
// of the path states: nothing is left to decide for the packet.
func (b Binding) Current(rules, steer uint32) bool {
	const mask = Binding(RulesMask)<<44 | SteerMask
	return b != 0 && b&mask == Binding(rules&RulesMask)<<44|Binding(steer&SteerMask)
}
