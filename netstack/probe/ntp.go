package probe

import "time"

// Timestamp is NTP's 64-bit format (RFC 5905, 6): seconds since 1900 modulo
// 2^32, and their fraction. Differences are right across the end of an era.
type Timestamp uint64

// ntpEpoch is 1900-01-01 in Unix seconds.
const ntpEpoch = -2208988800

// TimestampOf converts the wall clock reading of t.
func TimestampOf(t time.Time) Timestamp {
	sec := uint64(t.Unix() - ntpEpoch)
	// Rounded up, so that the nanosecond comes back exactly.
	frac := (uint64(t.Nanosecond())<<32 + 999_999_999) / 1_000_000_000
	return Timestamp(sec<<32 + frac)
}

// Sub is t-u, for times less than 68 years apart.
func (t Timestamp) Sub(u Timestamp) time.Duration {
	d := int64(t - u)
	sec, frac := d>>32, uint64(d)&0xffffffff
	return time.Duration(sec)*time.Second + time.Duration(frac*1_000_000_000>>32)
}
