package probe

import (
	"encoding/binary"
	"time"
)

// ReflectorState is what a stateful reflector (RFC 8762, 4) keeps of a path. The
// zero value is ready.
type ReflectorState struct {
	seq  uint32
	ssid uint16
	live bool
}

// Reflect appends the reply to the request req to dst and returns it; dst and
// req must not overlap. The reply is as long as the request (RFC 8762, 4.3).
// counts are ours, read when the request arrived at rx with the given TTL; tx is
// a placeholder, as counts.Tx is, until [StampReply].
//
// TLVs that we do not understand are copied with the U flag set; from a
// malformed TLV on, the rest is copied with M set in that TLV (RFC 8972, 4).
func Reflect(dst, req []byte, counts Counts, rx, tx time.Time, ttl uint8, state *ReflectorState) ([]byte, error) {
	if err := checkLen(req); err != nil {
		return dst, err
	}
	ssid := binary.BigEndian.Uint16(req[offSSID:])
	if !state.live || ssid != state.ssid { // a new session counts from 0
		*state = ReflectorState{ssid: ssid, live: true}
	}
	start := len(dst)
	dst = append(dst, req...)
	b := dst[start:]
	clear(b[:BaseLen])
	binary.BigEndian.PutUint32(b[offSeq:], state.seq)
	state.seq++
	binary.BigEndian.PutUint64(b[offTime:], uint64(TimestampOf(tx)))
	binary.BigEndian.PutUint16(b[offError:], errorEstimate)
	copy(b[offSSID:], req[offSSID:offSSID+2])
	binary.BigEndian.PutUint64(b[offRecvTime:], uint64(TimestampOf(rx)))
	copy(b[offSenderSeq:], req[offSeq:offSeq+4])
	copy(b[offSenderT:], req[offTime:offTime+8])
	copy(b[offSenderErr:], req[offError:offError+2])
	b[offSenderTTL] = ttl
	reflectTLVs(b[BaseLen:], &counts)
	return dst, nil
}

func reflectTLVs(b []byte, c *Counts) {
	for len(b) > 0 {
		t, rest, ok := nextTLV(b)
		if isZero(b) {
			return // padding of TWAMP Light and of RFC 8762 senders
		}
		if !ok {
			if len(b) >= tlvHeader {
				b[0] = flagMalformed
			}
			return
		}
		b[0] = 0
		switch t.typ {
		case typePadding:
		case typeDirect:
			if len(t.value) != directLen {
				b[0] = flagMalformed
				return
			}
			binary.BigEndian.PutUint32(t.value[4:], uint32(c.Rx))
			binary.BigEndian.PutUint32(t.value[8:], uint32(c.Tx))
		case typeCounts:
			if len(t.value) != countsLen {
				b[0] = flagMalformed
				return
			}
			putCounts(t.value, c)
		case typeNotices:
			if len(t.value)%noticeLen != 0 {
				b[0] = flagMalformed
				return
			}
		default:
			b[0] = flagUnknown
		}
		b = rest
	}
}
