package tunnel

import (
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

const (
	// slotLen is what of a slot is used: a message over a usual uplink, and its
	// tag.
	slotLen = tagNearTo
	// slotStride is an odd number of cache lines, so that the beginnings of
	// slots, which every packet touches, fall into all sets of a cache. Those
	// of the device's own buffers, 64 KB apart, all fall into one.
	slotStride = slotLen + 64
	// slotCount is how many slots the device gets: more than are ever on their
	// way in usual traffic, 2 MB. If it runs out it makes buffers of its own.
	slotCount = 1024
	// slotBatch is the least batch for which the slots are worth their memory.
	slotBatch = 32
	// slotInterval is how often an idle device's slots are counted, and
	// slotQuiet how many messages in that time are no work: probes go on.
	slotInterval = time.Second
	slotQuiet    = 512
)

// slotMark stands behind what is used of a slot, where nobody else writes.
const slotMark = 0x9a7c3d51c0ffee05

// slots replace the message buffers of a device, 64 KB each, by pieces of one
// slab that lie close together. The device's type for a buffer is an array of
// 64 KB, so slots overlap in what they could hold; therefore nobody is handed
// more than slotLen bytes of any buffer: see view and clip.
type slots struct {
	dev     *device.Device
	scratch []*[device.MaxMessageSize]byte
	seen    uint64 // messages in and out, when last counted
}

// slotsFit reports whether slots hold what a tunnel with these options carries.
func slotsFit(o *Options) bool {
	return o.BatchSize >= slotBatch && headerLen+o.MTU+tailRoom <= slotLen
}

// supply gives the device n slots.
func (s *slots) supply(n int) {
	slab := make([]byte, n*slotStride+device.MaxMessageSize)
	for ; n > 0; n-- {
		b := (*[device.MaxMessageSize]byte)(slab)
		putMark(b)
		s.dev.PutMessageBuffer(b)
		slab = slab[slotStride:]
	}
}

// tend counts the slots of a device that has had little to do since the last
// call.
// Its pool is a sync.Pool, which forgets what two collections found in it:
// taking everything out and putting it back makes it remember. What is no slot
// stays out, and what is missing is replaced. held is how many buffers the
// device's routines have in their hands.
func (s *slots) tend(messages uint64, held int) {
	passed := messages - s.seen
	s.seen = messages
	if passed > slotQuiet {
		return
	}
	have := s.scratch[:0]
	for len(have) < slotCount {
		b := s.dev.GetMessageBuffer()
		if marked(b) {
			have = append(have, b)
		} else if b[0] == 0 {
			break // new: the pool is empty
		}
	}
	for _, b := range have {
		s.dev.PutMessageBuffer(b)
	}
	// A few less are no reason for a slab.
	if missing := slotCount - len(have) - held; missing > slotCount/4 {
		s.supply(missing)
	}
	clear(have)
	s.scratch = have[:0]
}

func putMark(b *[device.MaxMessageSize]byte) {
	for i := range 8 {
		b[slotLen+i] = byte(uint64(slotMark) >> (8 * i))
	}
}

func marked(b *[device.MaxMessageSize]byte) bool {
	for i := range 8 {
		if b[slotLen+i] != byte(uint64(slotMark)>>(8*i)) {
			return false
		}
	}
	return true
}

// view is what may be used of a buffer. room 0 means all of it.
func view(b []byte, room int) []byte {
	if room == 0 {
		return b
	}
	return b[:room:room]
}

// clip takes from messages the memory behind them, so that a Bind which joins
// messages does so elsewhere.
func clip(msgs [][]byte) {
	for i, b := range msgs {
		msgs[i] = b[:len(b):len(b)]
	}
}

// limited is fn on what may be used of the buffers.
func limited(fn conn.ReceiveFunc, room int) conn.ReceiveFunc {
	if room == 0 {
		return fn
	}
	var views [][]byte
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		views = views[:0]
		for _, b := range bufs {
			views = append(views, view(b, room))
		}
		return fn(views, sizes, eps)
	}
}
