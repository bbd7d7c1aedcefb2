package lan

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"patronus/netstack/packet"
)

// oracle is a Resolver whose answers the test gives.
type oracle struct {
	mu    sync.Mutex
	asked []netip.Addr
	done  map[netip.Addr]func([6]byte, bool)
	known map[netip.Addr][6]byte
}

func (o *oracle) Resolve(a netip.Addr, done func([6]byte, bool)) ([6]byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, a)
	if mac, ok := o.known[a]; ok {
		return mac, true
	}
	o.done[a] = done
	return [6]byte{}, false
}

// bench is a table with its surroundings.
type bench struct {
	*neighbours
	oracle *oracle
	now    time.Duration
	count  counters
	sent   []string // what left, one letter a packet
	where  [][6]byte
}

func newBench() *bench {
	b := &bench{oracle: &oracle{done: map[netip.Addr]func([6]byte, bool){}, known: map[netip.Addr][6]byte{}}}
	b.neighbours = newNeighbours(b.oracle, func() int64 { return int64(b.now) }, &b.count, func(q []*packet.Buffer, mac [6]byte) {
		for _, p := range q {
			b.sent = append(b.sent, string(rune('a'+len(p.Bytes)-40)))
			b.where = append(b.where, mac)
		}
		release(q)
	})
	return b
}

// letter is a packet that leaves as c.
func letter(c byte) *Out {
	o := outOf(tcpPacket(segmentSpec{payload: int(c - 'a')}))
	return &o
}

func (b *bench) hold(a netip.Addr, c byte) {
	b.neighbours.hold(packet.AddrFrom(a), letter(c), int64(b.now))
}

func (b *bench) lookup(a netip.Addr) ([6]byte, bool) {
	k := packet.AddrFrom(a)
	return b.neighbours.lookup(&k, int64(b.now))
}

func (b *bench) drops() [NumDrops]uint64 { return b.count.snapshot().Drops }

var (
	host1 = netip.MustParseAddr("10.0.0.1")
	mac1  = [6]byte{2, 0, 0, 0, 0, 1}
	mac2  = [6]byte{2, 0, 0, 0, 0, 2}
)

func TestNeighbourAnswers(t *testing.T) {
	b := newBench()
	for _, c := range []byte("abcde") {
		b.hold(host1, c)
	}
	if len(b.oracle.asked) != 1 {
		t.Errorf("asked %d times", len(b.oracle.asked))
	}
	b.oracle.done[host1](mac1, true)
	if !slices.Equal(b.sent, []string{"c", "d", "e"}) || b.drops()[DropNeighbourQueue] != 2 {
		t.Errorf("sent %v, drops %v", b.sent, b.drops())
	}
	if mac, ok := b.lookup(host1); !ok || mac != mac1 {
		t.Errorf("%x, %v", mac, ok)
	}
	if b.waiting != 0 || len(b.asked) != 0 {
		t.Errorf("%d waiting, %d asked", b.waiting, len(b.asked))
	}
}

func TestNeighbourKnownToResolver(t *testing.T) {
	b := newBench()
	b.oracle.known[host1] = mac1
	b.hold(host1, 'a')
	if !slices.Equal(b.sent, []string{"a"}) || b.where[0] != mac1 {
		t.Errorf("sent %v to %x", b.sent, b.where)
	}
}

func TestNeighbourSilence(t *testing.T) {
	b := newBench()
	b.hold(host1, 'a')
	b.oracle.done[host1]([6]byte{}, false)
	if b.drops()[DropUnreachable] != 1 {
		t.Errorf("drops %v", b.drops())
	}
	b.now += silentTime - 1
	b.hold(host1, 'b')
	if len(b.oracle.asked) != 1 || b.drops()[DropUnreachable] != 2 {
		t.Errorf("asked %d times, drops %v", len(b.oracle.asked), b.drops())
	}
	b.now++
	b.hold(host1, 'c')
	if len(b.oracle.asked) != 2 {
		t.Errorf("asked %d times", len(b.oracle.asked))
	}
	b.oracle.done[host1](mac1, true)
	if !slices.Equal(b.sent, []string{"c"}) {
		t.Errorf("sent %v", b.sent)
	}
}

func TestNeighbourLostQuestionIsPutAgain(t *testing.T) {
	b := newBench()
	b.hold(host1, 'a')
	b.now += resolveTime
	b.hold(host1, 'b')
	if len(b.oracle.asked) != 2 || b.waiting != 1 {
		t.Errorf("asked %d times, %d waiting", len(b.oracle.asked), b.waiting)
	}
}

func TestNeighbourRefresh(t *testing.T) {
	b := newBench()
	b.oracle.known[host1] = mac1
	b.hold(host1, 'a')
	delete(b.oracle.known, host1)
	b.now += neighbourFresh
	for range 3 {
		if mac, ok := b.lookup(host1); !ok || mac != mac1 {
			t.Fatalf("an old answer is not used: %x, %v", mac, ok)
		}
	}
	if len(b.oracle.asked) != 2 {
		t.Fatalf("asked %d times", len(b.oracle.asked))
	}
	b.oracle.done[host1](mac2, true)
	if mac, _ := b.lookup(host1); mac != mac2 {
		t.Errorf("%x", mac)
	}
	b.now += neighbourFresh
	b.lookup(host1)
	b.oracle.done[host1]([6]byte{}, false)
	if _, ok := b.lookup(host1); ok {
		t.Error("a dead neighbour is still known")
	}
}

func TestNeighbourUpdate(t *testing.T) {
	b := newBench()
	b.update(packet.AddrFrom(host1), mac2) // not known: nobody asked
	if _, ok := b.lookup(host1); ok {
		t.Error("learned without asking")
	}
	b.oracle.known[host1] = mac1
	b.hold(host1, 'a')
	b.update(packet.AddrFrom(host1), [6]byte{1, 0, 0, 0, 0, 1}) // a group address
	if mac, _ := b.lookup(host1); mac != mac1 {
		t.Errorf("%x", mac)
	}
	b.update(packet.AddrFrom(host1), mac2)
	if mac, _ := b.lookup(host1); mac != mac2 {
		t.Errorf("%x", mac)
	}
}

// A scan of a network of dead hosts is bounded in questions and in memory, and
// those who are known are not disturbed.
func TestNeighbourScan(t *testing.T) {
	b := newBench()
	b.oracle.known[host1] = mac1
	b.hold(host1, 'a')
	addr := netip.MustParseAddr("10.1.0.0")
	for range 20000 {
		b.hold(addr, 'b')
		addr = addr.Next()
		b.now += 100 * time.Microsecond
		for a, done := range b.oracle.done {
			if len(b.oracle.done) > 200 {
				delete(b.oracle.done, a)
				if a.As4()[3]&1 == 0 { // the others are never answered
					done([6]byte{}, false)
				}
			}
		}
		if b.waiting > maxWaiting || len(b.asked) > maxWaiting+maxSilent {
			t.Fatalf("%d waiting, %d asked", b.waiting, len(b.asked))
		}
	}
	if b.drops()[DropNeighbours] == 0 || b.drops()[DropUnreachable] == 0 {
		t.Errorf("drops %v", b.drops())
	}
	if mac, ok := b.lookup(host1); !ok || mac != mac1 {
		t.Errorf("%x, %v", mac, ok)
	}
	b.now += resolveTime + sweepEvery
	b.hold(addr, 'c')
	if b.waiting != 1 {
		t.Errorf("%d still waiting", b.waiting)
	}
}

func TestNeighbourTableIsBounded(t *testing.T) {
	b := newBench()
	addr := netip.MustParseAddr("fd00::1")
	for range maxNeighbours + 10 {
		b.oracle.known[addr] = mac1
		b.hold(addr, 'a')
		addr = addr.Next()
	}
	if n := len(*b.known.Load()); n != maxNeighbours {
		t.Errorf("%d neighbours", n)
	}
}

func TestNeighbourDoesNotHoldSuperpackets(t *testing.T) {
	b := newBench()
	b.neighbours.hold(packet.AddrFrom(host1), &Out{
		Bytes: tcpPacket(segmentSpec{payload: 4000}), GSO: packet.GSO{Size: 1000, HdrLen: 40, Proto: packet.TCP},
	}, 0)
	if b.drops()[DropNeighbourQueue] != 4 || b.waiting != 0 {
		t.Errorf("drops %v", b.drops())
	}
}

func TestNeighbourClose(t *testing.T) {
	b := newBench()
	b.hold(host1, 'a')
	b.close()
	b.oracle.done[host1](mac1, true)
	b.hold(host1, 'b')
	if len(b.sent) != 0 || len(b.asked) != 0 || b.drops()[DropLinkDown] != 1 {
		t.Errorf("sent %v, %d asked, drops %v", b.sent, len(b.asked), b.drops())
	}
}

// Lookups, questions and answers from many sides at once.
func TestNeighbourConcurrency(t *testing.T) {
	var count counters
	answers := make(chan func(), 1<<16)
	n := newNeighbours(later(answers), func() int64 { return 0 }, &count, func(q []*packet.Buffer, _ [6]byte) { release(q) })
	var answering, asking sync.WaitGroup
	answering.Go(func() {
		for f := range answers {
			f()
		}
	})
	for w := range 4 {
		asking.Go(func() {
			addr := netip.AddrFrom4([4]byte{10, byte(w & 1), 0, 0})
			for i := range 2000 {
				a := packet.AddrFrom(addr)
				if _, ok := n.lookup(&a, int64(i)*int64(neighbourFresh)/100); !ok {
					n.hold(a, letter('a'), int64(i))
				}
				n.update(a, mac2)
				if i%7 == 0 {
					addr = addr.Next()
				}
			}
		})
	}
	asking.Wait()
	close(answers)
	answering.Wait()
	n.close()
}

// later is a resolver that answers from another goroutine, every third time
// with a no.
type later chan<- func()

func (l later) Resolve(a netip.Addr, done func([6]byte, bool)) ([6]byte, bool) {
	l <- func() { done(mac1, a.As4()[3]%3 != 0) }
	return [6]byte{}, false
}

func BenchmarkNeighbourLookup(b *testing.B) {
	t := newBench()
	addr := netip.MustParseAddr("10.0.0.1")
	for range 1000 {
		t.oracle.known[addr] = mac1
		t.hold(addr, 'a')
		addr = addr.Next()
	}
	a := packet.AddrFrom(host1)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		t.neighbours.lookup(&a, 0)
	}
}
