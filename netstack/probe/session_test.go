package probe

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"patronus/netstack/path"
)

const ms = time.Millisecond

// answer is the reflector's reply to r, stamped so that out and back take owd.
func answer(r Request, owd time.Duration, sent time.Time, st *ReflectorState) []byte {
	b := AppendRequest(nil, r)
	StampRequest(b, sent, 1)
	arrived := sent.Add(owd)
	reply, err := Reflect(nil, b, Counts{Epoch: 1}, arrived, arrived, 1, st)
	if err != nil {
		panic(err)
	}
	StampReply(reply, arrived, 1)
	return reply
}

// step runs the session at its own pace until end, answering while alive, and
// returns when probes left.
func step(s *Session, from, end time.Time, rtt time.Duration, alive func(time.Time) bool, st *ReflectorState) (sentAt []time.Time, lost int) {
	type reply struct {
		at time.Time
		b  []byte
	}
	var flying []reply
	for {
		due := s.Due()
		if len(flying) > 0 && (due.IsZero() || flying[0].at.Before(due)) {
			now := flying[0].at
			if now.After(end) {
				return sentAt, lost
			}
			s.OnReply(flying[0].b, now, Counts{Epoch: 2})
			flying = flying[1:]
			continue
		}
		if due.IsZero() || due.After(end) {
			return sentAt, lost
		}
		now := due
		lost += len(s.Expire(now, nil))
		if r, ok := s.Next(now, Counts{Epoch: 2}); ok {
			sentAt = append(sentAt, now)
			if alive(now) {
				flying = append(flying, reply{now.Add(rtt), answer(r, rtt/2, now, st)})
			}
		}
	}
}

func always(time.Time) bool { return true }
func never(time.Time) bool  { return false }

// The rates: 50 ms with traffic, 1 s warm, 10 s idle, none after 15 minutes.
func TestRateFollowsTraffic(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	s := NewSession(Options{SSID: 1}, start)
	var st ReflectorState
	now := start
	count := func(d time.Duration) int {
		sent, _ := step(s, now, now.Add(d-1), 10*ms, always, &st)
		now = now.Add(d)
		return len(sent)
	}
	for _, c := range []struct {
		name     string
		carried  bool
		d        time.Duration
		min, max int
		rate     Rate
	}{
		{"fresh", false, 10 * time.Second, 10, 11, RateWarm},
		{"traffic", true, time.Second, 20, 21, RateActive},
		{"traffic ends", false, 2 * time.Second, 19, 22, RateWarm},
		{"warm", false, 50 * time.Second, 49, 51, RateWarm},
		{"idle", false, 100 * time.Second, 9, 20, RateIdle},
		{"still idle", false, 740 * time.Second, 73, 75, RateIdle},
		{"cold", false, 100 * time.Second, 0, 2, RateCold},
		{"stays cold", false, time.Hour, 0, 0, RateCold},
		{"traffic again", true, time.Second, 20, 21, RateActive},
	} {
		if c.carried {
			s.Carried(now, now)
		}
		if n := count(c.d); n < c.min || n > c.max {
			t.Errorf("%s: %d probes, want %d to %d", c.name, n, c.min, c.max)
		}
		if r := s.Rate(now); r != c.rate {
			t.Errorf("%s: rate %v, want %v", c.name, r, c.rate)
		}
	}
}

// On an idle path the first missing probe is confirmed at the active rate.
func TestIdleLossIsConfirmedFast(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	s := NewSession(Options{SSID: 1}, start)
	var st ReflectorState
	dead := start.Add(5 * time.Minute)
	step(s, start, dead, 10*ms, always, &st)
	first := s.Due()
	for now := first; ; now = s.Due() {
		s.Expire(now, nil)
		if s.down {
			if took := now.Sub(first); took > 250*ms {
				t.Errorf("down %v after the first missing probe", took)
			}
			break
		}
		if now.Sub(first) > time.Minute {
			t.Fatal("never down")
		}
		s.Next(now, Counts{})
	}
	// A dead path is not hammered.
	sent, _ := step(s, first.Add(time.Second), first.Add(61*time.Second), 10*ms, never, &st)
	if len(sent) > 8 {
		t.Errorf("%d probes a minute into an idle dead path", len(sent))
	}
}

func TestNewPathThatIsDead(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	s := NewSession(Options{SSID: 1}, start)
	var st ReflectorState
	_, lost := step(s, start, start.Add(4*time.Second), 0, never, &st)
	if lost < 3 || !s.down {
		t.Errorf("%d missing after 4 s, down %v", lost, s.down)
	}
}

// The budget holds within a few per cent, and slows everybody alike.
func TestBudget(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	b := NewBudget(64) // two paths' worth
	var ss [8]*Session
	for i := range ss {
		ss[i] = NewSession(Options{SSID: uint16(i + 1), Budget: b}, start)
	}
	var st ReflectorState
	bytes := 0
	var n [8]int
	for now := start; now.Before(start.Add(30 * time.Second)); now = now.Add(ms) {
		for i, s := range ss {
			s.Carried(now, now)
			s.Expire(now, nil)
			if r, ok := s.Next(now, Counts{}); ok {
				n[i]++
				bytes += len(AppendRequest(nil, r)) + overhead
				s.OnReply(answer(r, 0, now, &st), now, Counts{})
			}
		}
	}
	if kbps := float64(bytes) * 8 / 30 / 1000; kbps > 70 || kbps < 55 {
		t.Errorf("%.1f kbit/s of a budget of 64", kbps)
	}
	for i := range n {
		if n[i] < 30*1000/(50*maxStretch) || n[i] < n[0]*8/10 {
			t.Errorf("session %d sent %d probes: %v", i, n[i], n)
		}
	}
	full := NewBudget(0)
	if d := full.stretch(50*ms, start); d != 50*ms {
		t.Errorf("a full bucket stretches to %v", d)
	}
}

// RTT is the path's, without the time the reflector held the packet; both
// clocks are arbitrary.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1_800_000_000, 0)
		out := time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "out"))
		back := time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "back"))
		held := time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "held"))
		skew := time.Duration(rapid.Int64Range(-1<<58, 1<<58).Draw(t, "skew"))
		s := NewSession(Options{SSID: 5}, now)
		r, _ := s.Next(now, Counts{})
		b := AppendRequest(nil, r)
		StampRequest(b, now, 1)
		var st ReflectorState
		reply, err := Reflect(nil, b, Counts{}, now.Add(out+skew), now, 1, &st)
		if err != nil {
			t.Fatal(err)
		}
		StampReply(reply, now.Add(out+skew+held), 1)
		res, ok := s.OnReply(reply, now.Add(out+held+back), Counts{})
		if !ok || !res.Probe.Timed {
			t.Fatalf("%+v, %v", res, ok)
		}
		if d := (res.Probe.RTT - out - back).Abs(); d > 3 {
			t.Fatalf("RTT %v, want %v", res.Probe.RTT, out+back)
		}
		if d := (res.Probe.Out - skew - out).Abs(); d > 3 {
			t.Fatalf("out %v, want %v", res.Probe.Out, out+skew)
		}
		if d := (res.Probe.In + skew - back).Abs(); d > 3 {
			t.Fatalf("in %v, want %v", res.Probe.In, back-skew)
		}
	})
}

// Replies twice, late, of other sessions, or of probes never sent.
func TestOddReplies(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := NewSession(Options{SSID: 5}, now)
	var st ReflectorState
	if _, ok := s.OnReply(answer(Request{SSID: 5}, 0, now, &st), now, Counts{}); ok {
		t.Error("reply to a probe never sent")
	}
	r, _ := s.Next(now, Counts{})
	b := answer(r, 5*ms, now, &st)
	if _, ok := s.OnReply(answer(Request{SSID: 6}, 0, now, &st), now, Counts{}); ok {
		t.Error("reply of another session")
	}
	if _, ok := s.OnReply(b[:30], now, Counts{}); ok {
		t.Error("short reply")
	}
	missing := s.Expire(s.Due(), nil)
	if len(missing) == 0 { // the second probe was due before the deadline
		missing = s.Expire(now.Add(initialTimeout), nil)
	}
	if len(missing) != 1 || !missing[0].Lost {
		t.Fatalf("missing: %+v", missing)
	}
	if res, ok := s.OnReply(b, now.Add(2*time.Second), Counts{}); !ok || !res.Probe.Late || res.Probe.SentAt != now {
		t.Errorf("late: %+v, %v", res, ok)
	}
	if res, ok := s.OnReply(b, now.Add(2*time.Second), Counts{}); !ok || !res.Duplicate {
		t.Errorf("twice: %+v, %v", res, ok)
	}
}

// If we were asleep, replies may be waiting unread: once, they get their time.
func TestOurStallIsNotTheirLoss(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := NewSession(Options{SSID: 5}, now)
	var st ReflectorState
	s.Carried(now, now)
	step(s, now, now.Add(time.Second), 10*ms, always, &st)
	now = s.Due()
	s.Expire(now, nil)
	r, ok := s.Next(now, Counts{})
	if !ok {
		t.Fatal("nothing to send")
	}
	sent := now
	now = now.Add(2 * time.Second) // the process was stopped
	if lost := s.Expire(now, nil); len(lost) != 0 {
		t.Errorf("%d probes given up before their replies were read", len(lost))
	}
	if res, ok := s.OnReply(answer(r, 5*ms, sent, &st), now, Counts{}); !ok || res.Probe.Late {
		t.Errorf("reply after the stall: %+v, %v", res, ok)
	}
	s.Next(now, Counts{})
	if lost := s.Expire(now.Add(5*time.Second), nil); len(lost) == 0 {
		t.Error("a second stall in a row was excused")
	}
}

func TestAnnounceWakesAColdPath(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := NewSession(Options{SSID: 5}, now)
	var st ReflectorState
	step(s, now, now.Add(time.Hour), 10*ms, always, &st)
	now = now.Add(time.Hour)
	if r := s.Rate(now); r != RateCold || !s.Due().IsZero() {
		t.Fatalf("rate %v, due %v", r, s.Due())
	}
	s.Announce([]Notice{{Uplink: netip.MustParseAddr("240.0.0.1"), Seq: 1}}, now)
	if s.Due() != now {
		t.Errorf("due %v", s.Due())
	}
	r, ok := s.Next(now, Counts{})
	if !ok || len(r.Notices) != 1 {
		t.Fatalf("%+v, %v", r, ok)
	}
	s.OnReply(answer(r, ms, now, &st), now.Add(2*ms), Counts{})
	if r, ok := s.Next(s.Due(), Counts{}); !ok || len(r.Notices) != 0 {
		t.Errorf("after the answer: %+v, %v", r, ok)
	}
}

// The 64-bit counters come back from 32 bits wherever they are, for any
// difference below 2^31.
func TestExtend(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Uint64Range(0, 1<<62).Draw(t, "v")
		d := rapid.Int64Range(-1<<31+1, 1<<31-1).Draw(t, "d")
		near := v + uint64(d)
		if d < 0 && uint64(-d) > v {
			near = 0
			if v >= 1<<31 {
				t.Skip()
			}
		}
		if got := extend(uint32(v), near); got != v {
			t.Fatalf("extend(%#x, %#x) = %#x, want %#x", uint32(v), near, got, v)
		}
	})
}

func BenchmarkSessionRound(b *testing.B) {
	now := time.Unix(1_800_000_000, 0)
	s := NewSession(Options{SSID: 5}, now)
	var st ReflectorState
	req, rep := make([]byte, 0, 256), make([]byte, 0, 256)
	var lost []path.Probe
	b.ReportAllocs()
	for b.Loop() {
		s.Carried(now, now)
		now = s.Due()
		lost = s.Expire(now, lost[:0])
		r, ok := s.Next(now, Counts{Epoch: 2})
		if !ok {
			continue
		}
		req = AppendRequest(req[:0], r)
		StampRequest(req, now, 1)
		rep, _ = Reflect(rep[:0], req, Counts{Epoch: 1}, now, now, 1, &st)
		StampReply(rep, now, 1)
		if _, ok := s.OnReply(rep, now.Add(10*ms), Counts{Epoch: 2}); !ok {
			b.Fatal("refused")
		}
	}
}

func BenchmarkAppendRequest(b *testing.B) {
	r := Request{Seq: 1, Time: at1, Counts: Counts{Epoch: 1}}
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendRequest(buf[:0], r)
		StampRequest(buf, at1, 5)
	}
}

func BenchmarkReflect(b *testing.B) {
	req := AppendRequest(nil, Request{Seq: 1, Time: at1, Counts: Counts{Epoch: 1}})
	buf := make([]byte, 0, 256)
	var st ReflectorState
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = Reflect(buf[:0], req, Counts{Epoch: 2}, at1, at1, 1, &st)
		StampReply(buf, at1, 5)
	}
}

func BenchmarkParseReply(b *testing.B) {
	var st ReflectorState
	rep, _ := Reflect(nil, AppendRequest(nil, Request{Seq: 1, Time: at1, Counts: Counts{Epoch: 1}}), Counts{Epoch: 2}, at1, at1, 1, &st)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseReply(rep); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkInBandObserve(b *testing.B) {
	b.Run("in-order", func(b *testing.B) {
		r := NewInBand()
		var c uint64
		b.ReportAllocs()
		for b.Loop() {
			r.Observe(1, c)
			c++
		}
	})
	b.Run("batch-of-32", func(b *testing.B) {
		r := NewInBand()
		var c uint64
		b.ReportAllocs()
		for b.Loop() {
			for range 32 {
				r.Observe(1, c)
				c++
			}
			r.Publish()
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/32, "ns/packet")
	})
	b.Run("one-in-eight-reordered", func(b *testing.B) {
		r := NewInBand()
		var c uint64
		b.ReportAllocs()
		for b.Loop() {
			for i := range uint64(8) {
				r.Observe(1, c+(i+1)%8)
			}
			c += 8
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/8, "ns/packet")
	})
}

// What runs for every packet or probe does not allocate.
func TestNoAllocations(t *testing.T) {
	req := AppendRequest(nil, request())
	buf := make([]byte, 0, 512)
	var st ReflectorState
	rep, _ := Reflect(nil, req, Counts{}, at1, at1, 1, &st)
	in := NewInBand()
	var c uint64
	var rcv Received
	for name, fn := range map[string]func(){
		"Observe":       func() { in.Observe(1, c); c += 2; in.Publish() },
		"Snapshot":      func() { in.Snapshot() },
		"AppendRequest": func() { buf = AppendRequest(buf[:0], Request{Counts: Counts{Tx: 1}}) },
		"ParseRequest":  func() { _ = ParseRequest(req, &rcv) },
		"Reflect":       func() { buf, _ = Reflect(buf[:0], req, Counts{}, at1, at1, 1, &st) },
		"ParseReply":    func() { _, _ = ParseReply(rep) },
	} {
		if n := testing.AllocsPerRun(1000, fn); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}
