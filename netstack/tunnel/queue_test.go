package tunnel

import (
	"encoding/binary"
	"testing"

	"golang.zx2c4.com/wireguard/device"
	"pgregory.net/rapid"

	"patronus/netstack/packet"
)

// loneShim is a shim with a queue but no device below it.
func loneShim(l limits, o Options) *shim {
	if o.Now == nil {
		o.Now = func() int64 { return 0 }
	}
	t := &Tunnel{o: o, queue: newQueue(l)}
	t.queue.start()
	return newShim(t)
}

func lonePeer(s *shim, id uint32) *Peer {
	p := &Peer{id: id, t: s.t, path: true, remote: [4]byte{240, 0, 0, byte(id)}}
	for band := range p.flight.lanes {
		p.flight.lanes[band].p = p
	}
	return p
}

func newBatch(n int) (bufs [][]byte, sizes []int) {
	bufs, sizes = make([][]byte, n), make([]int, n)
	for i := range bufs {
		bufs[i] = make([]byte, device.MaxMessageSize)
	}
	return bufs, sizes
}

// TestQueueLosesNothing feeds random buffers to random peers and reads random
// batches: each packet comes out once, in order within its peer and band, and
// all accounts are empty in the end.
func TestQueueLosesNothing(t *testing.T) {
	bufs, sizes := newBatch(64)
	rapid.Check(t, func(t *rapid.T) {
		s := loneShim(limits{peer: 1 << 20, device: 3 << 20, flight: 200}, Options{BatchSize: 64})
		q := s.t.queue
		peers := []*Peer{lonePeer(s, 1), lonePeer(s, 2), lonePeer(s, 3)}
		type lane struct {
			peer *Peer
			band uint8
		}
		want := map[lane][]uint64{}
		waiting, seq := 0, uint64(0)
		inside := map[*Peer]int{}
		read := func(n int) int {
			got, ok := s.fill(bufs[:n], sizes, headerLen)
			if !ok {
				t.Fatal("closed")
			}
			seen := map[uint32]bool{}
			for i := range got {
				b := bufs[i][headerLen:][:sizes[i]]
				p := peers[b[19]-1]
				inner := b[packet.OuterLen:]
				l := lane{p, inner[1]}
				num := binary.BigEndian.Uint64(inner[28:])
				if len(want[l]) == 0 || want[l][0] != num {
					t.Fatalf("packet %d of peer %d, band %d: want %v", num, p.id, l.band, want[l])
				}
				want[l] = want[l][1:]
				if !seen[p.id] {
					seen[p.id] = true
					sealed := bufs[i][:headerLen+sizes[i]+sealMin]
					if id, ok := readTag(sealed, 0); !ok || id != p.id {
						t.Fatalf("tag %d %v of peer %d", id, ok, p.id)
					}
				}
				inside[p]++
				if limit := q.flight; inside[p] > limit || !p.flight.open && inside[p] > stagedPackets {
					t.Fatalf("%d packets of a peer in the device", inside[p])
				}
			}
			waiting -= got
			return got
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			p := peers[rapid.IntRange(0, 2).Draw(t, "peer")]
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				band := rapid.Uint8Range(0, bands-1).Draw(t, "band")
				segments := rapid.IntRange(1, 40).Draw(t, "segments")
				b := numbered(segments, band, &seq)
				if !q.push(p, band, entry{b: b}) {
					b.Release()
					seq -= uint64(segments)
					continue
				}
				for i := range segments {
					want[lane{p, band}] = append(want[lane{p, band}], seq-uint64(segments-i))
				}
				waiting += segments
			case 2:
				read(rapid.IntRange(1, 64).Draw(t, "slots"))
			case 3:
				q.sent(p, inside[p], 0)
				inside[p] = 0
			}
		}
		for waiting > 0 {
			for _, p := range peers {
				q.sent(p, inside[p], 0)
				inside[p] = 0
			}
			if read(64) == 0 {
				t.Fatalf("%d packets are stuck", waiting)
			}
		}
		for _, p := range peers {
			q.sent(p, inside[p], 0)
		}
		if q.bytes != 0 || q.staged != 0 || peers[0].flight.bytes != 0 {
			t.Fatalf("bytes %d, staged %d, peer's %d", q.bytes, q.staged, peers[0].flight.bytes)
		}
	})
}

// numbered makes a buffer of n segments whose payloads begin with *seq and
// counting, and whose TOS octet is the band.
func numbered(n int, band uint8, seq *uint64) *packet.Buffer {
	const size = 64
	raw := udpPacket(n*size, 0)
	raw[1] = band
	binary.BigEndian.PutUint16(raw[10:], 0)
	binary.BigEndian.PutUint16(raw[10:], ^packet.Checksum(raw[:20], 0))
	for i := range n {
		binary.BigEndian.PutUint64(raw[28+i*size:], *seq)
		*seq++
	}
	b := buffer(raw)
	if n > 1 {
		b.GSO = packet.GSO{Size: size, HdrLen: 28, Proto: packet.UDP, NeedsCsum: true, CsumStart: 20, CsumOffset: 6}
	}
	return b
}

func TestBandsAndShares(t *testing.T) {
	bufs, sizes := newBatch(64)
	s := loneShim(limits{peer: 64 << 20, device: 256 << 20, flight: 1 << 20}, Options{BatchSize: 64})
	q := s.t.queue
	greedy, modest := lonePeer(s, 1), lonePeer(s, 2)
	q.confirmed(greedy, false)
	q.confirmed(modest, false)
	seq := uint64(0)
	push := func(p *Peer, band uint8, n int) {
		for range n {
			raw := udpPacket(1300, seq)
			raw[1] = band
			binary.BigEndian.PutUint16(raw[10:], 0)
			binary.BigEndian.PutUint16(raw[10:], ^packet.Checksum(raw[:20], 0))
			if !q.push(p, band, entry{b: buffer(raw)}) {
				t.Fatal("refused")
			}
		}
	}
	push(greedy, Rest, 4000)
	push(greedy, Voice, 1000)
	push(modest, Rest, 1000)
	push(modest, Control, 1)
	count := map[[2]byte]int{}
	for range 10 {
		n, _ := s.fill(bufs, sizes, headerLen)
		for i := range n {
			b := bufs[i][headerLen:]
			if i == 0 && len(count) == 0 && b[packet.OuterLen+1] != Control {
				t.Error("control did not go first")
			}
			count[[2]byte{b[19], b[packet.OuterLen+1]}]++
		}
	}
	// Of 640 packets voice has three quarters, and the peers share the rest.
	voice, g, m := count[[2]byte{1, Voice}], count[[2]byte{1, Rest}], count[[2]byte{2, Rest}]
	if voice < 470 || voice > 480 || g+m < 159 || g-m > 64 || m-g > 64 {
		t.Errorf("voice %d, greedy %d, modest %d", voice, g, m)
	}
}

func TestTagSurvivesSealing(t *testing.T) {
	buf := make([]byte, device.MaxMessageSize)
	for n := 1; n < 3000; n++ {
		for pad := range device.PaddingMultiple {
			clear(buf)
			putTag(buf, headerLen+n, uint32(n))
			sealed := buf[:headerLen+n+pad+sealMin]
			for i := range sealed {
				sealed[i] = 0xff
			}
			if id, ok := readTag(sealed, 0); !ok || id != uint32(n) {
				t.Fatalf("%d bytes, padding %d: %d %v", n, pad, id, ok)
			}
		}
	}
}

func FuzzReadTag(f *testing.F) {
	f.Add([]byte{}, 0)
	f.Add(make([]byte, 3000), 100)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		if n >= 0 && n <= len(b) {
			readTag(b[:n:len(b)], 0)
		}
	})
}

// TestNoAllocations: nothing of ours allocates for a packet once it runs.
func TestNoAllocations(t *testing.T) {
	bufs, sizes := newBatch(64)
	s := loneShim(limits{peer: 64 << 20, device: 256 << 20, flight: 1 << 20}, Options{BatchSize: 64})
	q, p := s.t.queue, lonePeer(s, 1)
	q.confirmed(p, false)
	raw := udpPacket(1300, 0)
	got := testing.AllocsPerRun(1000, func() {
		for range 64 {
			if !q.push(p, Rest, entry{b: buffer(raw)}) {
				t.Fatal("refused")
			}
		}
		if n, _ := s.fill(bufs, sizes, headerLen); n != 64 {
			t.Fatal(n)
		}
		q.sent(p, 64, 0)
	})
	if got >= 1 && !raceEnabled {
		t.Errorf("%v allocations for 64 packets", got)
	}
}

func BenchmarkQueue(b *testing.B) {
	bufs, sizes := newBatch(128)
	s := loneShim(limits{peer: 64 << 20, device: 256 << 20, flight: 1 << 20}, Options{BatchSize: 128})
	q, p := s.t.queue, lonePeer(s, 1)
	q.confirmed(p, false)
	raw := udpPacket(1300, 0)
	b.ReportAllocs()
	for b.Loop() {
		q.push(p, Rest, entry{b: buffer(raw)})
		if p.flight.lanes[Rest].ring.n == 128 {
			n, _ := s.fill(bufs, sizes, headerLen)
			q.sent(p, n, 0)
		}
	}
}
