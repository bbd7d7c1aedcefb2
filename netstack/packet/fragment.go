package packet

import (
	"encoding/binary"
	"errors"
)

// Errors of Fragments.
var (
	ErrDontFragment = errors.New("packet: must not be fragmented")
	ErrMTU          = errors.New("packet: MTU too small for a fragment")
)

// Fragments cuts an IPv4 packet, decoded into in, into fragments of at most
// mtu bytes (RFC 791, 3.2) and yields them in order. A fragment is cut further
// the same way; a packet that fits is yielded as it is. Its transport checksum
// must be complete: call FinishChecksum before.
//
// borrowed: what is yielded is valid until yield returns, for whom it is to
// change. Nothing is yielded with an error: ErrDontFragment for DF and for
// IPv6, where only sources fragment (RFC 8200, 4.5), ErrMTU if no 8 bytes of
// payload fit.
func Fragments(b []byte, in *Info, mtu int, yield func([]byte)) error {
	b = b[:in.Length]
	if len(b) <= mtu {
		yield(b)
		return nil
	}
	if in.Version != 4 {
		return ErrDontFragment
	}
	word := binary.BigEndian.Uint16(b[6:])
	if word&fragDF != 0 {
		return ErrDontFragment
	}
	header := int(b[0]&0xf) * 4
	if mtu < minMTU4 || (mtu-header)&^7 <= 0 {
		return ErrMTU
	}
	buf := Get(mtu)
	defer buf.Release()
	f := buf.Bytes
	copy(f, b[:header])
	payload := b[header:]
	for offset := int(word & fragOffset); len(payload) > 0; {
		n := min(len(payload), (mtu-header)&^7)
		copy(f[header:], payload[:n])
		payload = payload[n:]
		flags := word &^ fragOffset
		if len(payload) > 0 {
			flags |= fragMore
		}
		binary.BigEndian.PutUint16(f[2:], uint16(header+n))
		binary.BigEndian.PutUint16(f[6:], flags|uint16(offset))
		f[10], f[11] = 0, 0
		binary.BigEndian.PutUint16(f[10:], ^Checksum(f[:header], 0))
		yield(f[:header+n])
		offset += n / 8
		if header > ipv4Len {
			header = keepCopied(f[:header])
		}
	}
	return nil
}

// keepCopied reduces an IPv4 header's options to those that each fragment
// carries (the top bit of their type) and returns the new header length.
func keepCopied(h []byte) int {
	kept := ipv4Len
	for at := ipv4Len; at < len(h) && h[at] != 0; {
		n := 1
		if h[at] != 1 {
			n = int(h[at+1])
		}
		if h[at]&0x80 != 0 {
			kept += copy(h[kept:], h[at:at+n])
		}
		at += n
	}
	for kept%4 != 0 {
		h[kept] = 0
		kept++
	}
	h[0] = 0x40 | uint8(kept/4)
	return kept
}
