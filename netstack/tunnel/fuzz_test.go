//go:build linux

package tunnel

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"

	"patronus/configs"
)

// FuzzReceived gives the meter junk: what it lets through has the form that
// the device expects.
func FuzzReceived(f *testing.F) {
	for _, size := range []int{0, 1, 31, 32, 64, 92, 148, 1500} {
		for kind := range byte(6) {
			b := make([]byte, size)
			if size > 0 {
				b[0] = kind
			}
			f.Add(b, b)
		}
	}
	m := newMeter(&Tunnel{o: Options{Now: func() int64 { return 0 }}}, nil, configs.Key{1})
	from := make([]conn.Endpoint, 2)
	for i := range from {
		from[i] = newEndpoint(nowhere, 0)
	}
	m.index.register(7)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		bufs, sizes := [][]byte{a, b}, []int{len(a), len(b)}
		m.received(bufs, sizes, from)
		for i, n := range sizes {
			if n == 0 {
				continue
			}
			kind := binary.LittleEndian.Uint32(bufs[i])
			ok := map[uint32]bool{
				device.MessageTransportType:   n >= device.MinMessageSize,
				device.MessageInitiationType:  n == device.MessageInitiationSize,
				device.MessageResponseType:    n == device.MessageResponseSize,
				device.MessageCookieReplyType: n == device.MessageCookieReplySize,
			}
			if !ok[kind] {
				t.Errorf("a message of type %d with %d bytes passed", kind, n)
			}
		}
	})
}

// FuzzSplit plays a kernel that says anything in its control messages, and
// checks that each byte of a message comes out once and in order.
func FuzzSplit(f *testing.F) {
	gro := make([]byte, 24)
	binary.NativeEndian.PutUint64(gro, 20)
	binary.NativeEndian.PutUint32(gro[8:], unix.SOL_UDP)
	binary.NativeEndian.PutUint32(gro[12:], unix.UDP_GRO)
	binary.NativeEndian.PutUint32(gro[16:], 100)
	f.Add(gro, uint16(250), uint16(0), uint16(100))
	f.Add(gro, uint16(6400), uint16(100), uint16(100))
	f.Add(gro, uint16(65507), uint16(1400), uint16(90))
	f.Add([]byte{}, uint16(0), uint16(10), uint16(2000))
	f.Add(gro, uint16(64001), uint16(0), uint16(100))
	f.Add([]byte{}, uint16(3001), uint16(1400), uint16(100))
	const batch = 128
	whole, sizes := newBatch(batch)
	short := make([][]byte, batch)
	for i := range short {
		short[i] = view(whole[i], slotLen)
	}
	eps := make([]conn.Endpoint, batch)
	f.Fuzz(func(t *testing.T, control []byte, first, width, second uint16) {
		if len(control) > controlLen {
			return
		}
		bufs := whole
		if first%2 == 1 {
			bufs = short
		}
		var r receiver
		var count udpCounters
		r.init(batch)
		s := &socket{merges: true}
		r.sock, r.width = s, int(width)
		r.lay(bufs, s)
		want := 0
		for m, size := range []int{int(first), int(second)} {
			// Fill the message's buffers in order, as the kernel does.
			h := &r.msgs[m].hdr
			left := size
			for _, v := range ioVecs(h) {
				n := min(left, len(v))
				for i := range n {
					v[i] = byte(want)
					want++
				}
				left -= n
			}
			r.msgs[m].len = uint32(size)
			copy(r.controls[m][:], control)
			h.SetControllen(len(control))
			binary.NativeEndian.PutUint16(r.names[m][:], unix.AF_INET)
		}
		r.count = 2
		got := 0
		check := func(n int) {
			for i, b := range bufs[:n] {
				for _, v := range b[:sizes[i]] {
					if v != byte(got) && count.tooLong.Load() == 0 {
						t.Fatalf("byte %d is %d, not %d", got, v, byte(got))
					}
					got++
				}
			}
		}
		clear(sizes)
		check(r.split(bufs, sizes, eps, &count))
		for len(r.relaid) > 0 {
			check(r.give(bufs, sizes, eps, &count))
		}
		if got != want && count.tooLong.Load() == 0 {
			t.Fatalf("%d bytes of %d", got, want)
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add("private_key=00\nlisten_port=1\npublic_key=" + strings.Repeat("ab", 32) +
		"\nendpoint=192.0.2.1:5\nlast_handshake_time_sec=1\nlast_handshake_time_nsec=2\ntx_bytes=3\nrx_bytes=4\n")
	f.Add("public_key=xy\n")
	f.Add("endpoint=[::1%lo]:5\nrx_bytes=-1")
	f.Fuzz(func(t *testing.T, text string) {
		status, err := parseStatus(text, time.Unix(100, 0))
		if err == nil && len(status) > strings.Count(text, "public_key=") {
			t.Errorf("%d peers", len(status))
		}
	})
}

func FuzzParseEndpoint(f *testing.F) {
	for _, s := range []string{"192.0.2.1:80", "[2001:db8::1]:51820", "[fe80::1%1]:5", "[::ffff:192.0.2.1]:9", ":1", "[fe80::1%nosuch]:5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := parseEndpoint(s)
		if err != nil {
			return
		}
		again, err := parseEndpoint(e.DstToString())
		if err != nil || again.DstIP() != e.DstIP() {
			t.Errorf("%q -> %q -> %v %v", s, e.DstToString(), again, err)
		}
		// The kernel's form carries all of it.
		var n sockaddr
		x := e.(*endpoint)
		n.put(x)
		if back := n.endpoint(); back.addr != x.addr {
			t.Errorf("%v -> %v", x.addr, back.addr)
		}
	})
}

// ioVecs are the buffers of a message.
func ioVecs(h *unix.Msghdr) (out [][]byte) {
	for _, v := range unsafe.Slice(h.Iov, h.Iovlen) {
		out = append(out, unsafe.Slice(v.Base, v.Len))
	}
	return out
}
