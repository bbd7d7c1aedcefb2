package flow

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"patronus/netstack/packet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// key makes a key from "10.0.0.1:1" and "10.0.0.2:2".
func key(proto uint8, src, dst string) packet.Key {
	return packet.NewKey(proto, netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst))
}

// numbered is the i-th of many distinct keys.
func numbered(proto uint8, i int) packet.Key {
	a := netip.AddrFrom4([4]byte{10, byte(i >> 24), byte(i >> 16), byte(i >> 8)})
	return packet.NewKey(proto, netip.AddrPortFrom(a, uint16(1024+i&0xff)), netip.MustParseAddrPort("10.255.0.1:80"))
}

// open inserts a TCP flow and completes its handshake.
func open(t *Table, k packet.Key, now int64) *Flow {
	f, _ := t.Insert(&k, now, 60, syn)
	f.Observe(false, 1, 60, syn|ack, now)
	f.Observe(true, 1, 52, ack, now)
	return f
}

func TestLookupFindsBothDirections(t *testing.T) {
	for _, k := range []packet.Key{
		key(packet.TCP, "10.0.0.1:1000", "10.0.0.2:80"),
		key(packet.UDP, "[fd00:1::5]:1000", "[fd00:2::7]:53"),
		key(packet.ICMP, "10.0.0.1:77", "10.0.0.2:77"),
		key(packet.TCP, "10.0.0.1:80", "10.0.0.1:80"),
	} {
		table := New(Options{Max: 10})
		if f, _ := table.Lookup(&k); f != nil {
			t.Fatal("found in an empty table")
		}
		f, fresh := table.Insert(&k, 1, 100, 0)
		if !fresh || f.Key() != k {
			t.Fatalf("inserted %v, fresh %v", f.Key(), fresh)
		}
		back := k.Reverse()
		if g, forward := table.Lookup(&k); g != f || !forward {
			t.Errorf("%s: found %p forward %v", FormatKey(&k), g, forward)
		}
		if g, forward := table.Lookup(&back); g != f || forward != (back == k) {
			t.Errorf("%s reversed: found %p forward %v", FormatKey(&k), g, forward)
		}
		if g, fresh := table.Insert(&back, 2, 10, 0); g != f || fresh {
			t.Errorf("%s: the reply made a flow of its own", FormatKey(&k))
		}
		if table.Len() != 1 || !table.Remove(&back) || table.Remove(&k) || table.Len() != 0 {
			t.Errorf("%s: not one entry", FormatKey(&k))
		}
	}
}

func TestCounting(t *testing.T) {
	table := New(Options{Max: 10})
	k := key(packet.UDP, "10.0.0.1:1000", "10.0.0.2:53")
	f, _ := table.Insert(&k, 5, 100, 0)
	f.Observe(false, 3, 1500, 0, 5+granule)
	f.Observe(true, 2, 200, 0, 5+2*granule)
	v := f.View()
	if v.Forward != (Counts{3, 300}) || v.Reverse != (Counts{3, 1500}) || v.Created != 5 || v.Seen != 5+2*granule ||
		v.State != TwoWay || !v.Replied || v.Key != k {
		t.Errorf("%+v", v)
	}
	if v.Originator().String() != "10.0.0.1:1000" || v.Responder().String() != "10.0.0.2:53" || v.ID() != "udp-10.0.0.1-1000-10.0.0.2-53" {
		t.Errorf("%v %v %v", v.Originator(), v.Responder(), v.ID())
	}
}

func TestIdle(t *testing.T) {
	tcp := key(packet.TCP, "10.0.0.1:1000", "10.0.0.2:80")
	udp := key(packet.UDP, "10.0.0.1:1000", "10.0.0.2:53")
	ping := key(packet.ICMPv6, "[fd00::1]:7", "[fd00::2]:7")
	type run struct {
		forward bool
		flags   uint8
	}
	handshake := []run{{false, syn | ack}, {true, ack}}
	for _, c := range []struct {
		name  string
		key   packet.Key
		first uint8
		then  []run
		state State
		idle  time.Duration
	}{
		{"syn", tcp, syn, nil, SynSent, 30 * time.Second},
		{"syn-ack", tcp, syn, handshake[:1], SynReceived, 30 * time.Second},
		{"established", tcp, syn, handshake, Established, 2 * time.Hour},
		{"fin", tcp, syn, append(handshake, run{true, fin | ack}), FinWait, 4 * time.Minute},
		{"both fins", tcp, syn, append(handshake, run{true, fin | ack}, run{false, fin | ack}), Closing, 30 * time.Second},
		{"closed", tcp, syn, append(handshake, run{true, fin | ack}, run{false, fin | ack}, run{true, ack}), Closed, 10 * time.Second},
		{"reset", tcp, syn, []run{{false, rst | ack}}, Closed, 10 * time.Second},
		{"adopted", tcp, ack, nil, Adopted, time.Minute},
		{"adopted, answered", tcp, ack, []run{{false, ack}}, Established, 2 * time.Hour},
		{"udp", udp, 0, []run{{true, 0}}, OneWay, 30 * time.Second},
		{"udp answered", udp, 0, []run{{false, 0}}, TwoWay, 180 * time.Second},
		{"ping", ping, 0, nil, OneWay, 30 * time.Second},
		{"ping answered", ping, 0, []run{{false, 0}}, TwoWay, 30 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := New(Options{Max: 10})
			f, _ := table.Insert(&c.key, 0, 60, c.first)
			for _, r := range c.then {
				f.Observe(r.forward, 1, 60, r.flags, 0)
			}
			if f.State() != c.state {
				t.Fatalf("state %v, want %v", f.State(), c.state)
			}
			table.Expire(int64(c.idle), 1000)
			if table.Len() != 1 {
				t.Fatal("expired too early")
			}
			table.Expire(int64(c.idle)+1, 1000)
			if table.Len() != 0 || table.Counters().Expired != 1 {
				t.Fatal("not expired")
			}
		})
	}
}

func TestExpireKeepsToItsBudget(t *testing.T) {
	const flows = 4000
	table := New(Options{Max: flows})
	for i := range flows {
		k := numbered(packet.UDP, i)
		table.Insert(&k, 0, 60, 0)
	}
	calls := 0
	for table.Len() > 0 {
		before := table.Len()
		table.Expire(int64(time.Hour), 100)
		if n := before - table.Len(); n > 100+bucketSlots {
			t.Fatalf("%d flows in one call", n)
		}
		if calls++; calls > flows {
			t.Fatal("no end")
		}
	}
	if c := table.Counters(); c.Expired != flows || c.Created != flows {
		t.Errorf("%+v", c)
	}
	for i := range table.buckets {
		if ctrl := table.buckets[i].ctrl.Load(); ctrl != 0 {
			t.Fatalf("bucket %d of an empty table: %#x", i, ctrl)
		}
	}
}

func TestReopen(t *testing.T) {
	var events []Event
	table := New(Options{Max: 10, Sink: func(e Event) { events = append(events, e) }})
	k := key(packet.TCP, "10.0.0.1:1000", "10.0.0.2:80")
	old := open(table, k, 0)
	old.Bind(NewBinding(1, 1, 0, 2, 3))
	if old.Reopens(syn) {
		t.Fatal("a SYN must not displace an established flow")
	}
	old.Observe(false, 1, 40, rst, 0)
	if old.Reopens(ack) || old.Reopens(syn|ack) || !old.Reopens(syn|packet.FlagECE|packet.FlagCWR) {
		t.Fatal("only a SYN reopens")
	}
	back := k.Reverse()
	f, fresh := table.Insert(&back, 9, 60, syn)
	if !fresh || f == old || f.Key() != back || f.State() != SynSent || table.Len() != 1 {
		t.Fatalf("fresh %v, %+v", fresh, f.View())
	}
	if g, forward := table.Lookup(&back); g != f || !forward {
		t.Fatal("the old flow is still found")
	}
	if n := len(events); n != 2 || events[1].Kind != Ended || events[1].End != Replaced || events[1].View.Key != k {
		t.Fatalf("%+v", events)
	}
}

func TestEvents(t *testing.T) {
	var got []string
	table := New(Options{Max: 1, Sink: func(e Event) {
		got = append(got, fmt.Sprint(e.Kind, " ", e.End, " ", e.From.Path(), ">", e.View.Binding.Path()))
	}})
	a, b, c := numbered(packet.UDP, 1), numbered(packet.UDP, 2), numbered(packet.UDP, 3)
	f, _ := table.Insert(&a, 0, 60, 0)
	f.SetRecord(&Record{Winner: "hq.wan0~east.lte0"})
	f.Bind(NewBinding(1, 1, 0, 4, 1))
	f.Bind(NewBinding(2, 1, 0, 4, 2)) // judged again, nothing changed
	f.Bind(NewBinding(2, 1, 0, 5, 3))
	f.Bind(NewBinding(3, 2, 0, NoPath, 3))
	if v := f.View(); v.Moves != 1 || v.Record.Winner != "hq.wan0~east.lte0" {
		t.Errorf("%+v", v)
	}
	table.Insert(&b, 1, 60, 0) // evicts a; never bound, so it will end in silence
	f.Bind(NewBinding(4, 1, 0, 6, 3))
	g, _ := table.Insert(&c, 2, 60, 0) // evicts b
	g.Bind(NewBinding(4, 1, 0, 6, 3))
	table.Remove(&c)
	want := []string{
		"started  0>4", "moved  4>5", "rejudged  5>65535", "ended evicted 0>65535",
		"started  0>6", "ended removed 0>6",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if c := table.Counters(); c != (Counters{Created: 3, Evicted: 2, Removed: 1}) {
		t.Errorf("%+v", c)
	}
}

func TestBinding(t *testing.T) {
	for _, c := range []struct {
		rules          uint32
		verdict, class uint8
		path           uint16
		steer          uint32
	}{{1, 1, 0, 0, 0}, {RulesMask, 15, 255, NoPath, SteerMask}, {0, 1, 7, 300, 0}, {1 << 19, 8, 128, 1 << 15, 1 << 15}} {
		b := NewBinding(c.rules, c.verdict, c.class, c.path, c.steer)
		if b.Rules() != c.rules || b.Verdict() != c.verdict || b.Class() != c.class || b.Path() != c.path || b.Steer() != c.steer {
			t.Errorf("%+v became %#x", c, uint64(b))
		}
		if !b.Current(c.rules, c.steer) || !b.Judged(c.rules) || !b.Current(c.rules+1<<20, c.steer+1<<16) {
			t.Errorf("%+v is not current", c)
		}
		if b.Current(c.rules+1, c.steer) || b.Current(c.rules, c.steer+1) || b.Judged(c.rules+1) || !b.Judged(c.rules) {
			t.Errorf("%+v is current for another version", c)
		}
	}
	if Binding(0).Current(0, 0) || Binding(0).Judged(0) {
		t.Error("nothing was decided")
	}
}

func TestNoAllocations(t *testing.T) {
	table := New(Options{Max: 100})
	k := key(packet.TCP, "10.0.0.1:1000", "10.0.0.2:80")
	f := open(table, k, 0)
	other := numbered(packet.UDP, 3)
	for name, do := range map[string]func(){
		"lookup":  func() { table.Lookup(&k) },
		"miss":    func() { table.Lookup(&other) },
		"observe": func() { f.Observe(true, 1, 40, ack, 9) },
		"bind":    func() { f.Bind(NewBinding(1, 1, 1, 1, 1)) },
		"expire":  func() { table.Expire(0, 1000) },
		"all": func() {
			for v := range table.All() {
				_ = v.Seen
			}
		},
	} {
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
