package probe

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"time"
)

// Port is STAMP's UDP port (RFC 8762, 4.1).
const Port = 862

// BaseLen is the length of both base packets in unauthenticated mode, octets.
const BaseLen = 44

// MaxLen is the longest payload that is parsed or reflected, octets. Path MTU
// probes are padded STAMP packets, so it exceeds any MTU seen.
const MaxLen = 9216

// Errors of the codec.
var (
	ErrShort = errors.New("shorter than a STAMP packet")
	ErrLong  = errors.New("longer than any STAMP packet of ours")
	ErrTLV   = errors.New("malformed TLV")
	ErrClock = errors.New("peer's timestamps are not in NTP format")
)

// TLV types. 250 and 251 are ours, from the range for experimental use: the
// private range would ask for an enterprise number (RFC 8972, 4 and 5.1).
const (
	typePadding = 1 // RFC 8972, 4.1
	typeDirect  = 5 // RFC 8972, 4.5
	typeNotices = 250
	typeCounts  = 251
)

// TLV flags (RFC 8972, 4).
const (
	flagUnknown   = 0x80 // U
	flagMalformed = 0x40 // M
	flagIntegrity = 0x20 // I
)

const (
	tlvHeader  = 4
	directLen  = 12
	countsLen  = 48
	noticeLen  = 12
	offHeard   = 4  // in the value of typeCounts
	MaxNotices = 16 // in one packet
)

// Offsets of the base packet's fields (RFC 8762, 4.2.1 and 4.3.1).
const (
	offSeq       = 0
	offTime      = 4 // T1 of a request, T3 of a reply
	offError     = 12
	offSSID      = 14 // RFC 8972, 3
	offRecvTime  = 16 // T2
	offSenderSeq = 24
	offSenderT   = 28 // T1
	offSenderErr = 36
	offSenderTTL = 40
)

// errorEstimate says: not synchronised (S=0), NTP format (Z=0), within 2^-32 s
// x 1 x 2^10, a quarter of a microsecond, of the sender's own clock (RFC 4656,
// 4.1.2; the multiplier must not be 0).
const errorEstimate = 10<<8 | 1

// errorPTP is the Z bit: the timestamp is in PTPv2 format (RFC 8186, 2.3).
const errorPTP = 0x4000

// Counts are one end's view of a path, cumulative since Epoch.
type Counts struct {
	// Epoch identifies the run of the process that counts; it is random or
	// the time of the start, never 0.
	Epoch uint32
	// Tx is the number of packets put into the path, Rx of those that came
	// out of it, probes included, WireGuard's keepalives not.
	Tx, Rx uint64
	// Missing, Reordered and Duplicates are the receiver's, see [InBand].
	Missing, Reordered, Duplicates uint64
}

// Notice tells the peer that one of our uplinks died or lives again. It
// travels in requests over all paths, so that the peer moves its flows before it
// has missed a probe.
type Notice struct {
	// Uplink is the path address of the uplink, IPv4.
	Uplink netip.Addr
	Alive  bool
	// Seq rises with each notice about this uplink, also over a restart (start
	// from the time in seconds); the newest one holds.
	Seq uint32
}

// Request is a Session-Sender test packet. Time and Counts.Tx are placeholders
// until [StampRequest].
type Request struct {
	Seq     uint32
	SSID    uint16
	Time    time.Time
	Counts  Counts
	Notices []Notice
	// Heard is the newest sequence number heard of the peer's own session.
	Heard    uint32
	HasHeard bool
	// Pad is the number of octets of Extra Padding (RFC 8972, 4.1) to add.
	Pad int
}

// AppendRequest appends the UDP payload of r to dst.
func AppendRequest(dst []byte, r Request) []byte {
	var base [BaseLen]byte
	binary.BigEndian.PutUint32(base[offSeq:], r.Seq)
	binary.BigEndian.PutUint64(base[offTime:], uint64(TimestampOf(r.Time)))
	binary.BigEndian.PutUint16(base[offError:], errorEstimate)
	binary.BigEndian.PutUint16(base[offSSID:], r.SSID)
	dst = append(dst, base[:]...)
	// A sender sets U; the reflector clears it in what it understands.
	dst = appendTLV(dst, flagUnknown, typeDirect, directLen)
	binary.BigEndian.PutUint32(dst[len(dst)-directLen:], uint32(r.Counts.Tx))
	dst = appendTLV(dst, flagUnknown, typeCounts, countsLen)
	putCounts(dst[len(dst)-countsLen:], &r.Counts)
	if r.HasHeard { // 0 means nothing heard; so does the one number that wraps to it
		binary.BigEndian.PutUint32(dst[len(dst)-countsLen+offHeard:], r.Heard+1)
	}
	if n := min(len(r.Notices), MaxNotices); n > 0 {
		dst = appendTLV(dst, flagUnknown, typeNotices, n*noticeLen)
		v := dst[len(dst)-n*noticeLen:]
		for i := range n {
			putNotice(v[i*noticeLen:], &r.Notices[i])
		}
	}
	if r.Pad > 0 {
		dst = appendTLV(dst, flagUnknown, typePadding, r.Pad)
	}
	return dst
}

func appendTLV(dst []byte, flags, typ byte, n int) []byte {
	dst = append(dst, flags, typ, byte(n>>8), byte(n))
	dst = slices.Grow(dst, n)
	dst = dst[:len(dst)+n]
	clear(dst[len(dst)-n:])
	return dst
}

func putCounts(v []byte, c *Counts) {
	binary.BigEndian.PutUint32(v, c.Epoch)
	binary.BigEndian.PutUint32(v[offHeard:], 0)
	binary.BigEndian.PutUint64(v[8:], c.Tx)
	binary.BigEndian.PutUint64(v[16:], c.Rx)
	binary.BigEndian.PutUint64(v[24:], c.Missing)
	binary.BigEndian.PutUint64(v[32:], c.Reordered)
	binary.BigEndian.PutUint64(v[40:], c.Duplicates)
}

func counts(v []byte) Counts {
	return Counts{
		Epoch: binary.BigEndian.Uint32(v), Tx: binary.BigEndian.Uint64(v[8:]), Rx: binary.BigEndian.Uint64(v[16:]),
		Missing: binary.BigEndian.Uint64(v[24:]), Reordered: binary.BigEndian.Uint64(v[32:]),
		Duplicates: binary.BigEndian.Uint64(v[40:]),
	}
}

func putNotice(v []byte, n *Notice) {
	if n.Uplink.Is4() {
		a := n.Uplink.As4()
		copy(v, a[:])
	}
	clear(v[4:8])
	if n.Alive {
		v[4] = 1
	}
	binary.BigEndian.PutUint32(v[8:], n.Seq)
}

func notice(v []byte) Notice {
	return Notice{Uplink: netip.AddrFrom4([4]byte(v[:4])), Alive: v[4] == 1, Seq: binary.BigEndian.Uint32(v[8:])}
}

// tlv is one TLV in place.
type tlv struct {
	flags, typ byte
	value      []byte
}

// nextTLV splits the first TLV off b; ok is false if what is left is no TLV.
func nextTLV(b []byte) (t tlv, rest []byte, ok bool) {
	if len(b) < tlvHeader {
		return tlv{}, nil, false
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if tlvHeader+n > len(b) {
		return tlv{}, nil, false
	}
	return tlv{flags: b[0], typ: b[1], value: b[tlvHeader : tlvHeader+n]}, b[tlvHeader+n:], true
}

// StampRequest patches T1 and S_TxC of a request in place, and nothing else: b
// is the UDP payload that [AppendRequest] made, tx the time and txCount the
// number of packets put into the path, this one included.
func StampRequest(b []byte, tx time.Time, txCount uint64) {
	if len(b) < BaseLen {
		return
	}
	binary.BigEndian.PutUint64(b[offTime:], uint64(TimestampOf(tx)))
	stampCounts(b, 0, txCount)
}

// StampReply patches T3 and R_TxC of a reply in place, as [StampRequest] does.
func StampReply(b []byte, tx time.Time, txCount uint64) {
	if len(b) < BaseLen {
		return
	}
	binary.BigEndian.PutUint64(b[offTime:], uint64(TimestampOf(tx)))
	stampCounts(b, 8, txCount)
}

// stampCounts writes the counter at off of the Direct Measurement TLV and Tx
// of ours.
func stampCounts(b []byte, off int, txCount uint64) {
	for rest := b[BaseLen:]; ; {
		t, r, ok := nextTLV(rest)
		if !ok {
			return
		}
		switch {
		case t.flags&flagMalformed != 0:
		case t.typ == typeDirect && len(t.value) == directLen:
			binary.BigEndian.PutUint32(t.value[off:], uint32(txCount))
		case t.typ == typeCounts && len(t.value) == countsLen:
			binary.BigEndian.PutUint64(t.value[8:], txCount)
		}
		rest = r
	}
}

// Received is a parsed request.
type Received struct {
	Seq  uint32
	SSID uint16
	Time Timestamp
	// Counts are the peer's, if HasCounts.
	Counts    Counts
	HasCounts bool
	// Heard is the newest of our session's sequence numbers that the peer
	// has heard, if HasHeard.
	Heard    uint32
	HasHeard bool
	notices  [MaxNotices]Notice
	n        int
}

// Notices are the peer's notices about its uplinks, in the memory of r.
func (r *Received) Notices() []Notice { return r.notices[:r.n] }

// ParseRequest reads a test packet of ours or of another STAMP sender into r.
// It keeps nothing of b. A malformed TLV ends the parsing with ErrTLV; what came
// before it is in r, and the packet can be reflected all the same.
func ParseRequest(b []byte, r *Received) error {
	*r = Received{}
	if err := checkLen(b); err != nil {
		return err
	}
	r.Seq = binary.BigEndian.Uint32(b[offSeq:])
	r.SSID = binary.BigEndian.Uint16(b[offSSID:])
	r.Time = Timestamp(binary.BigEndian.Uint64(b[offTime:]))
	for rest := b[BaseLen:]; len(rest) > 0; {
		t, next, ok := nextTLV(rest)
		if isZero(rest) {
			return nil // padding of TWAMP Light and of RFC 8762 senders
		}
		if !ok {
			return ErrTLV
		}
		switch t.typ {
		case typeDirect: // answered, not needed
			if len(t.value) != directLen {
				return ErrTLV
			}
		case typeCounts:
			if len(t.value) != countsLen {
				return ErrTLV
			}
			r.Counts, r.HasCounts = counts(t.value), true
			h := binary.BigEndian.Uint32(t.value[offHeard:])
			r.Heard, r.HasHeard = h-1, h != 0
		case typeNotices:
			if len(t.value)%noticeLen != 0 {
				return ErrTLV
			}
			for v := t.value; len(v) > 0 && r.n < MaxNotices; v = v[noticeLen:] {
				r.notices[r.n] = notice(v)
				r.n++
			}
		}
		rest = next
	}
	return nil
}

// Reply is a parsed reflected packet.
type Reply struct {
	Seq            uint32 // the reflector's own
	SSID           uint16
	SenderSeq      uint32
	T1, T2, T3     Timestamp
	SenderTTL      uint8
	STx, RRx, RTx  uint32 // Direct Measurement, if HasDirect
	HasDirect      bool
	Counts         Counts // the reflector's, if HasCounts
	HasCounts      bool
	NoticesUnknown bool // the peer does not understand our notices
}

// ParseReply reads a reflected packet. It keeps nothing of b. TLVs that the
// reflector flagged as not understood or malformed are passed over.
func ParseReply(b []byte) (Reply, error) {
	if err := checkLen(b); err != nil {
		return Reply{}, err
	}
	if binary.BigEndian.Uint16(b[offError:])&errorPTP != 0 {
		return Reply{}, ErrClock
	}
	r := Reply{
		Seq:       binary.BigEndian.Uint32(b[offSeq:]),
		SSID:      binary.BigEndian.Uint16(b[offSSID:]),
		T3:        Timestamp(binary.BigEndian.Uint64(b[offTime:])),
		T2:        Timestamp(binary.BigEndian.Uint64(b[offRecvTime:])),
		SenderSeq: binary.BigEndian.Uint32(b[offSenderSeq:]),
		T1:        Timestamp(binary.BigEndian.Uint64(b[offSenderT:])),
		SenderTTL: b[offSenderTTL],
	}
	for rest := b[BaseLen:]; len(rest) > 0; {
		t, next, ok := nextTLV(rest)
		if isZero(rest) {
			return r, nil
		}
		if !ok {
			return Reply{}, ErrTLV
		}
		refused := t.flags&(flagUnknown|flagMalformed|flagIntegrity) != 0
		switch {
		case t.typ == typeNotices:
			r.NoticesUnknown = refused
		case refused:
		case t.typ == typeDirect && len(t.value) == directLen:
			r.STx = binary.BigEndian.Uint32(t.value)
			r.RRx = binary.BigEndian.Uint32(t.value[4:])
			r.RTx = binary.BigEndian.Uint32(t.value[8:])
			r.HasDirect = true
		case t.typ == typeCounts && len(t.value) == countsLen:
			r.Counts, r.HasCounts = counts(t.value), true
		}
		rest = next
	}
	return r, nil
}

func checkLen(b []byte) error {
	if len(b) < BaseLen {
		return ErrShort
	}
	if len(b) > MaxLen {
		return ErrLong
	}
	return nil
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
