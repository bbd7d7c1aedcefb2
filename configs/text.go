package configs

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration written as Go writes it ("50ms").
type Duration time.Duration

// String is Go's form, "1m30s".
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes Go's form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads Go's form; a bare number other than 0 is refused.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("is not a duration such as 50ms, 10s or 15m")
	}
	*d = Duration(v)
	return nil
}

// PortRange is an inclusive range, written "5060" or "5060-5061".
type PortRange struct{ First, Last uint16 }

// String is the written form.
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// MarshalText writes the written form.
func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a port or a rising range of ports, 1 to 65535.
func (r *PortRange) UnmarshalText(text []byte) error {
	first, last, isRange := strings.Cut(string(text), "-")
	if !isRange {
		last = first
	}
	a, errA := parsePort(first)
	b, errB := parsePort(last)
	if errA != nil || errB != nil {
		return fmt.Errorf("is not a port (1 to 65535) or a range such as 5060-5061")
	}
	if a > b {
		return fmt.Errorf("is a range that runs backwards")
	}
	*r = PortRange{First: a, Last: b}
	return nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, strconv.ErrRange
	}
	return uint16(n), nil
}

// DSCP is a differentiated services code point (RFC 2474), written as a number
// or by name (ef, af41, cs5).
type DSCP uint8

// maxDSCP is the largest code point: the field has six bits.
const maxDSCP = 63

// dscpName is the registered name of a code point (IANA dscp-registry), empty
// if it has none.
func dscpName(d DSCP) string {
	switch d {
	case 0:
		return "df" // RFC 2474, default forwarding
	case 1:
		return "le" // RFC 8622, lower effort
	case 44:
		return "va" // RFC 5865, voice admitted
	case 46:
		return "ef" // RFC 3246, expedited forwarding
	}
	if d%8 == 0 && d <= 56 {
		return fmt.Sprintf("cs%d", d/8) // RFC 2474 4.2.2, class selectors
	}
	class, drop := d>>3, d>>1&3
	if d&1 == 0 && class >= 1 && class <= 4 && drop >= 1 {
		return fmt.Sprintf("af%d%d", class, drop) // RFC 2597, assured forwarding
	}
	return ""
}

// String is the name where there is one, otherwise the number.
func (d DSCP) String() string {
	if name := dscpName(d); name != "" {
		return name
	}
	return strconv.Itoa(int(d))
}

// MarshalText writes the name or the number.
func (d DSCP) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a number, 0 to 63, or a name in either case. "be" and
// "cs0" are taken for default forwarding.
func (d *DSCP) UnmarshalText(text []byte) error {
	if n, err := strconv.ParseUint(string(text), 10, 8); err == nil && n <= maxDSCP {
		*d = DSCP(n)
		return nil
	}
	name := strings.ToLower(string(text))
	if name == "be" || name == "cs0" {
		*d = 0
		return nil
	}
	for c := DSCP(0); c <= maxDSCP; c++ {
		if name != "" && dscpName(c) == name {
			*d = c
			return nil
		}
	}
	return fmt.Errorf("is not a DSCP: 0 to 63, or a name such as ef, af41, cs5")
}
