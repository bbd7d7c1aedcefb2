package path

import (
	"fmt"
	"time"
)

// State says what can be expected of a path.
type State uint8

// The states.
const (
	// Unknown: not measured yet, or cold (not probed for want of traffic). It
	// is no fault and raises no alert.
	Unknown State = iota
	// Up: probes are answered.
	Up
	// Degraded: probes are answered, but the default class's SLA is violated.
	Degraded
	// Down: several probes in a row are missing, or one side said so.
	Down
)

var stateNames = [...]string{Unknown: "unknown", Up: "up", Degraded: "degraded", Down: "down"}

// String is the lower-case name that the API shows.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// MarshalText writes the name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a name.
func (s *State) UnmarshalText(text []byte) error {
	for i, n := range stateNames {
		if n == string(text) {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("no such path state: %.20q", text)
}

// Cause says why a state changed.
type Cause uint8

// The causes.
const (
	CauseReplies   Cause = iota // probes are answered
	CauseMissing                // several probes in a row are missing
	CauseCarrier                // the local uplink has no carrier
	CausePeer                   // the peer announced that its uplink is dead
	CauseViolation              // the default class's SLA is violated
	CauseRecovered              // the default class's SLA is met again
	CauseCold                   // no traffic for long: no longer probed
)

var causeNames = [...]string{
	CauseReplies: "replies", CauseMissing: "missing probes", CauseCarrier: "no carrier",
	CausePeer: "peer notice", CauseViolation: "sla violated", CauseRecovered: "sla met",
	CauseCold: "cold",
}

// String is the phrase that events show.
func (c Cause) String() string {
	if int(c) < len(causeNames) {
		return causeNames[c]
	}
	return fmt.Sprintf("cause(%d)", uint8(c))
}

// Transition is one change of State.
type Transition struct {
	Path     ID
	From, To State
	Cause    Cause
	At       time.Time
	// Suppressed: the path flaps, and new flows avoid it even when it is Up.
	Suppressed bool
}
