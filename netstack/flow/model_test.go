package flow

import (
	"testing"

	"pgregory.net/rapid"

	"patronus/netstack/packet"
)

// model is what a table should be: a map, and the naive way to do everything.
// Who is evicted is the table's choice; the model learns it from the event.
type model struct {
	table *Table
	max   int
	now   int64
	flows map[packet.Key]*expected // by the originator's key
	want  Counters
}

type expected struct {
	flow             *Flow
	state            uint32
	created, seen    int64
	forward, reverse Counts
}

func (m *model) find(k packet.Key) (e *expected, forward bool) {
	if e := m.flows[k]; e != nil {
		return e, true
	}
	return m.flows[k.Reverse()], false
}

func (e *expected) observe(forward bool, packets, bytes int, flags uint8, now int64) {
	c := &e.forward
	if !forward {
		c = &e.reverse
	}
	c.Packets += uint64(packets)
	c.Bytes += uint64(bytes)
	e.state = advance(e.state, forward, flags)
	e.seen = max(e.seen, now)
}

func (m *model) same(t *rapid.T, v View) {
	e := m.flows[v.Key]
	switch {
	case e == nil:
		t.Fatalf("%s should not be there", v.ID())
	case v.Forward != e.forward || v.Reverse != e.reverse || v.State != State(e.state&stateMask) || v.Replied != (e.state&replied != 0) || v.Created != e.created:
		t.Fatalf("%+v, want %+v", v, e)
	case v.Seen > e.seen || v.Seen <= e.seen-granule:
		t.Fatalf("%s seen at %d, want %d", v.ID(), v.Seen, e.seen)
	}
}

func TestTableAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{max: rapid.IntRange(1, 40).Draw(t, "max"), flows: map[packet.Key]*expected{}}
		m.table = New(Options{
			Max: m.max, Shards: rapid.SampledFrom([]int{0, 1, 8}).Draw(t, "shards"), Seed: rapid.Uint64().Draw(t, "seed"),
			Sink: func(e Event) {
				if e.Kind != Ended {
					return
				}
				m.same(t, e.View)
				last := m.flows[e.View.Key].state
				delete(m.flows, e.View.Key)
				switch e.End {
				case Evicted:
					m.want.Evicted++
					if worthOf(last, e.View.Key.Proto) == established {
						m.want.EvictedEstablished++
					}
				case Idle:
					m.want.Expired++
				case Replaced:
					m.want.Replaced++
				case Removed:
					m.want.Removed++
				case NotEnded:
					t.Fatal("ended without a reason")
				}
			},
		})
		if rapid.IntRange(0, 4).Draw(t, "one hash") == 0 {
			m.table.seeds = seeds{}
		}
		draw := func(t *rapid.T) packet.Key {
			k := numbered(rapid.SampledFrom([]uint8{packet.TCP, packet.UDP, packet.ICMP}).Draw(t, "proto"), rapid.IntRange(0, 30).Draw(t, "key"))
			if rapid.Bool().Draw(t, "reversed") {
				return k.Reverse()
			}
			return k
		}
		flags := rapid.SampledFrom([]uint8{syn, syn | ack, ack, fin | ack, rst, 0})
		t.Repeat(map[string]func(*rapid.T){
			"packet": func(t *rapid.T) {
				m.now += rapid.Int64Range(0, 3*second).Draw(t, "later")
				k, fl := draw(t), flags.Draw(t, "flags")
				e, forward := m.find(k)
				f, fresh := m.table.Insert(&k, m.now, 100, fl)
				reopens := e != nil && fl == syn && k.Proto == packet.TCP && (State(e.state&stateMask) == Closed || State(e.state&stateMask) == Closing)
				switch {
				case e != nil && !reopens:
					if fresh || f != e.flow {
						t.Fatal("not the flow that was there")
					}
					e.observe(forward, 1, 100, fl, m.now)
				case !fresh:
					t.Fatal("not a new flow")
				default:
					m.want.Created++
					m.flows[k] = &expected{flow: f, state: firstState(k.Proto, fl), created: m.now, seen: m.now, forward: Counts{1, 100}}
					f.Bind(NewBinding(1, 1, 0, 0, 0))
				}
			},
			"run": func(t *rapid.T) {
				k, fl, n := draw(t), flags.Draw(t, "flags"), rapid.IntRange(1, 50).Draw(t, "packets")
				f, forward := m.table.Lookup(&k)
				e, wantForward := m.find(k)
				if (f == nil) != (e == nil) || f != nil && (f != e.flow || forward != wantForward) {
					t.Fatalf("found %p forward %v, want %+v forward %v", f, forward, e, wantForward)
				}
				if f != nil {
					f.Observe(forward, n, n*1000, fl, m.now)
					e.observe(forward, n, n*1000, fl, m.now)
				}
			},
			"remove": func(t *rapid.T) {
				k := draw(t)
				e, _ := m.find(k)
				if m.table.Remove(&k) != (e != nil) {
					t.Fatal("removed or not")
				}
			},
			"expire": func(t *rapid.T) {
				m.now += rapid.Int64Range(0, 200*second).Draw(t, "later")
				m.table.Expire(m.now, 1<<20)
				for _, e := range m.flows {
					limit := m.table.idle[State(e.state&stateMask)]
					if icmp(e.flow.key.Proto) {
						limit = m.table.icmpIdle
					}
					if m.now-e.seen > limit {
						t.Fatalf("%+v should have expired at %d", e, m.now)
					}
				}
			},
			"": func(t *rapid.T) {
				n, whole := 0, 0
				for v := range m.table.All() {
					m.same(t, v)
					n++
				}
				for k, e := range m.flows {
					if worthOf(e.state, k.Proto) == established {
						whole++
					}
				}
				m.want.Live, m.want.Established = len(m.flows), whole
				if n != len(m.flows) || n > m.max || m.table.Len() != n || m.table.Counters() != m.want {
					t.Fatalf("%d yielded, %d in the model, %+v, want %+v", n, len(m.flows), m.table.Counters(), m.want)
				}
			},
		})
	})
}
