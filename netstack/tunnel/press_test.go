package tunnel

import (
	"testing"
	"testing/synctest"
	"time"

	"patronus/netstack/packet"
)

// super is a superpacket of n segments of 1000 bytes.
func super(n int) *packet.Buffer {
	b := buffer(udpPacket(n*1000, 0))
	b.GSO = packet.GSO{Size: 1000, HdrLen: 28, Proto: packet.UDP, NeedsCsum: true, CsumStart: 20, CsumOffset: 6}
	return b
}

// TestPressed: superpackets that the device could take press it; single ones,
// and those of a peer that it may not have yet, do not.
func TestPressed(t *testing.T) {
	s := loneShim(limits{peer: 8 << 20, device: 64 << 20, flight: 128}, Options{BatchSize: 64})
	q, p, shut := s.t.queue, lonePeer(s, 1), lonePeer(s, 2)
	push := func(p *Peer, b *packet.Buffer) {
		t.Helper()
		if !q.push(p, Rest, entry{b: b}) {
			t.Fatal("refused")
		}
	}
	bufs, sizes := newBatch(64)
	for range pressedAt {
		push(shut, super(20))
	}
	s.fill(bufs, sizes, headerLen) // takes eight segments, and blocks the peer
	s.fill(bufs, sizes, headerLen)
	for range 2 * pressedAt {
		push(p, buffer(udpPacket(1000, 0)))
	}
	q.confirmed(p, false)
	if q.pressed() {
		t.Fatal("pressed by what the device may not take")
	}
	for i := range pressedAt {
		if q.pressed() {
			t.Fatalf("pressed by %d", i)
		}
		push(p, super(20))
	}
	if !q.pressed() {
		t.Fatal("not pressed")
	}
	for q.pressed() {
		n, ok := s.fill(bufs, sizes, headerLen)
		if !ok || n == 0 {
			t.Fatal("nothing to read, but pressed")
		}
		q.sent(p, n, 0)
	}
	q.confirmed(shut, true)
	if !q.pressed() {
		t.Error("not pressed by the peer that has a session now")
	}
	q.remove(shut)
	q.remove(p)
	if q.supers != 0 || q.bytes != 0 {
		t.Errorf("%d superpackets, %d bytes remain", q.supers, q.bytes)
	}
}

// TestAwait: who waits is released by the device, by time or by the end; all
// who wait are.
func TestAwait(t *testing.T) {
	for name, release := range map[string]func(s *shim, p *Peer){
		"read": func(s *shim, p *Peer) {
			bufs, sizes := newBatch(64)
			for s.t.queue.pressed() {
				n, _ := s.fill(bufs, sizes, headerLen)
				s.t.queue.sent(p, n, 0)
			}
			for range 4 {
				n, _ := s.fill(bufs, sizes, headerLen)
				s.t.queue.sent(p, n, 0)
			}
		},
		"time":    func(*shim, *Peer) { time.Sleep(time.Second) },
		"removed": func(s *shim, p *Peer) { s.t.queue.remove(p); s.fill(nil, nil, headerLen) },
		"closed":  func(s *shim, _ *Peer) { s.t.queue.close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := loneShim(limits{peer: 8 << 20, device: 64 << 20, flight: 128}, Options{BatchSize: 64})
				q, p := s.t.queue, lonePeer(s, 1)
				q.confirmed(p, false)
				for range pressedAt {
					q.push(p, Rest, entry{b: super(20)})
				}
				done := make(chan time.Duration, 2)
				start := time.Now()
				for range cap(done) {
					go func() {
						q.await(time.After(time.Second))
						done <- time.Since(start)
					}()
				}
				synctest.Wait()
				if len(done) != 0 {
					t.Fatal("nobody waits")
				}
				release(s, p)
				synctest.Wait()
				if len(done) != cap(done) {
					t.Errorf("%d of %d were released", len(done), cap(done))
				}
			})
		})
	}
}
