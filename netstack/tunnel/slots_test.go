package tunnel

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"golang.zx2c4.com/wireguard/device"
)

// lonePool is the slots of a device that does nothing else: its tunnel is not
// up, and its reading goroutine has its buffers.
func lonePool(t *testing.T) *side {
	t.Helper()
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool drop things on purpose")
	}
	a, _ := NewMemory(slotBatch)
	s := newSide(t, "240.0.0.1", a, sink(func([]Inbound) {}), func(o *Options) { o.BatchSize = slotBatch })
	if s.slots == nil {
		t.Fatal("no slots")
	}
	return s
}

// drain takes all slots out of the pool.
func drain(s *slots) (all []*[device.MaxMessageSize]byte) {
	for {
		b := s.dev.GetMessageBuffer()
		if !marked(b) {
			return all
		}
		all = append(all, b)
	}
}

// TestSlotsAreApart fills what may be used of every slot, and finds all of it
// again: none reaches into another.
func TestSlotsAreApart(t *testing.T) {
	all := drain(lonePool(t).slots)
	if n := len(all); n < slotCount-slotBatch || n > slotCount {
		t.Errorf("%d slots, want %d less those in use", n, slotCount)
	}
	for i, b := range all {
		v := view(b[:], slotLen)
		if len(v) != slotLen || cap(v) != slotLen {
			t.Fatalf("a view has %d, %d bytes", len(v), cap(v))
		}
		for j := range v {
			v[j] = byte(i + i>>8)
		}
	}
	for i, b := range all {
		for j, c := range b[:slotLen] {
			if c != byte(i+i>>8) {
				t.Fatalf("slot %d, byte %d: %d", i, j, c)
			}
		}
		if !marked(b) {
			t.Fatalf("slot %d has lost its mark", i)
		}
	}
}

// TestSlotsComeBack: what a collection took from an idle device is replaced,
// and the device's own buffers leave.
func TestSlotsComeBack(t *testing.T) {
	s := lonePool(t).slots
	drain(s)
	own := new([device.MaxMessageSize]byte)
	own[0] = device.MessageTransportType
	s.dev.PutMessageBuffer(own)
	s.tend(slotQuiet+1, slotBatch) // busy: leaves all alone
	if n := len(drain(s)); n != 0 {
		t.Errorf("%d slots came while the device was busy", n)
	}
	s.dev.PutMessageBuffer(own)
	s.tend(slotQuiet+1+slotQuiet, slotBatch)
	back := drain(s)
	// A sync.Pool keeps one for each processor to itself, and the device may take
	// its batch only now.
	if n := slotCount - slotBatch - len(back); n < 0 || n > slotBatch+runtime.GOMAXPROCS(0) {
		t.Errorf("%d slots came back, want %d", len(back), slotCount-slotBatch)
	}
}

// TestTooLongForSlots: what is longer than a slot is dropped on both sides,
// and counted; above an MTU of 1992 it is not.
func TestTooLongForSlots(t *testing.T) {
	for mtu, want := range map[int]int{DefaultMTU: 1, 1992: 1, 1993: 2, 9000: 2} {
		var got arrivals
		a, b, _, _ := memoryPair(t, &arrivals{}, &got, func(o *Options) { o.MTU = mtu })
		a.run(t)
		b.run(t)
		if !a.Send(a.peer, buffer(udpPacket(4000, 1)), Rest) || !a.Send(a.peer, buffer(udpPacket(1900, 2)), Rest) {
			t.Fatal("refused")
		}
		waitFor(t, fmt.Sprint("packets with MTU ", mtu), func() bool { return got.n() == want })
		if n := a.peer.Counters().Malformed; n != uint64(2-want) {
			t.Errorf("MTU %d: %d packets did not fit", mtu, n)
		}
	}
}

// TestTooLongDatagrams: junk that is longer than a slot disturbs nobody.
func TestTooLongDatagrams(t *testing.T) {
	got := newStream()
	a, _, _, ub := udpPair(t, loop4, UDPOptions{}, newStream(), got, nil)
	junk := newUDP(t, UDPOptions{Sources: []netip.Addr{loop4}, NoOffload: true})
	if _, _, err := junk.Open(0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { junk.Close() })
	long := make([]byte, slotLen+1)
	long[0] = device.MessageTransportType
	if err := junk.Send([][]byte{long, long}, endpointAt(t, junk, ub.addr(t, loop4))); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "junk", func() bool { return ub.Counters().TooLong == 2 })
	a.Send(a.peer, buffer(udpPacket(1000, 0)), Rest)
	waitFor(t, "a packet", func() bool { return got.bytes.Load() > 0 })
}
