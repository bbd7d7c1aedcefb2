package probe

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// at1 is 2026-11-24T00:00:00.5Z: NTP seconds 0xeeaf5200 since 1900.
var at1 = time.Unix(1795478400, 500_000_000)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Laid out by hand after RFC 8762 (4.2.1), RFC 8972 (3, 4 and 4.5).
const requestHex = `
	00000007
	eeaf5200 80000000
	0a01 beef
	00000000 00000000 00000000 00000000 00000000 00000000 00000000
	80 05 000c  00000064 00000000 00000000
	80 fb 0030  00000009 00000003
	            00000001 00000064  00000000 00000050
	            00000000 00000001  00000000 00000002  00000000 00000003
	80 fa 000c  f0010203 01000000 0000002a`

func request() Request {
	return Request{
		Seq: 7, SSID: 0xbeef, Time: at1, Heard: 2, HasHeard: true,
		Counts: Counts{
			Epoch: 9, Tx: 1<<32 + 100, Rx: 80, Missing: 1, Reordered: 2, Duplicates: 3,
		},
		Notices: []Notice{{Uplink: netip.MustParseAddr("240.1.2.3"), Alive: true, Seq: 42}},
	}
}

func TestRequestLayout(t *testing.T) {
	want := unhex(t, requestHex)
	got := AppendRequest(nil, request())
	if !bytes.Equal(got, want) {
		t.Fatalf("got\n%s want\n%s", hex.Dump(got), hex.Dump(want))
	}
	var r Received
	if err := ParseRequest(want, &r); err != nil {
		t.Fatal(err)
	}
	if r.Seq != 7 || r.SSID != 0xbeef || r.Time != TimestampOf(at1) || !r.HasHeard || r.Heard != 2 {
		t.Errorf("%+v", r)
	}
	if d := cmp.Diff(request().Counts, r.Counts); d != "" || !r.HasCounts {
		t.Error(d)
	}
	if d := cmp.Diff(request().Notices, r.Notices(), cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
}

// RFC 8762 (4.3.1); the TLVs in place, U cleared where understood.
func TestReplyLayout(t *testing.T) {
	want := unhex(t, `
		00000000
		eeaf5202 40000000
		0a01 beef
		eeaf5201 00000000
		00000007
		eeaf5200 80000000
		0a01 0000
		40 000000
		00 05 000c  00000064 00000055 00000066
		00 fb 0030  00000005 00000000
		            00000000 00000066  00000000 00000055
		            00000000 00000004  00000000 00000005  00000000 00000006
		00 fa 000c  f0010203 01000000 0000002a`)
	var state ReflectorState
	c := Counts{Epoch: 5, Tx: 1, Rx: 0x55, Missing: 4, Reordered: 5, Duplicates: 6}
	rx := at1.Add(500 * time.Millisecond)
	got, err := Reflect(nil, unhex(t, requestHex), c, rx, rx, 64, &state)
	if err != nil {
		t.Fatal(err)
	}
	StampReply(got, at1.Add(1750*time.Millisecond), 0x66)
	if !bytes.Equal(got, want) {
		t.Fatalf("got\n%s want\n%s", hex.Dump(got), hex.Dump(want))
	}
	r, err := ParseReply(got)
	if err != nil {
		t.Fatal(err)
	}
	c.Tx = 0x66
	wantReply := Reply{
		SSID: 0xbeef, SenderSeq: 7, T1: TimestampOf(at1), T2: TimestampOf(rx), T3: TimestampOf(at1.Add(1750 * time.Millisecond)),
		SenderTTL: 64, STx: 0x64, RRx: 0x55, RTx: 0x66, HasDirect: true, Counts: c, HasCounts: true,
	}
	if d := cmp.Diff(wantReply, r); d != "" {
		t.Error(d)
	}
	if r.T3.Sub(r.T2) != 1250*time.Millisecond {
		t.Errorf("held for %v", r.T3.Sub(r.T2))
	}
}

func TestStampRequestPatchesOnlyItsFields(t *testing.T) {
	b := AppendRequest(nil, request())
	want := bytes.Clone(b)
	copy(want[4:], unhex(t, "eeaf5201 80000000"))
	copy(want[48:], unhex(t, "00000065"))
	copy(want[72:], unhex(t, "00000001 00000065"))
	StampRequest(b, at1.Add(time.Second), 1<<32+101)
	if !bytes.Equal(b, want) {
		t.Errorf("got\n%s want\n%s", hex.Dump(b), hex.Dump(want))
	}
	StampRequest(b[:20], at1, 1) // too short: left alone
	StampReply(nil, at1, 1)
}

// A stateful reflector numbers its replies, each session from 0 (RFC 8762, 4.3.1).
func TestReflectorNumbers(t *testing.T) {
	var state ReflectorState
	for i, c := range []struct {
		ssid uint16
		want uint32
	}{{1, 0}, {1, 1}, {2, 0}, {2, 1}} {
		b, err := Reflect(nil, AppendRequest(nil, Request{SSID: c.ssid, Seq: 9}), Counts{}, at1, at1, 1, &state)
		if err != nil {
			t.Fatal(err)
		}
		if r, _ := ParseReply(b); r.Seq != c.want || r.SenderSeq != 9 {
			t.Errorf("%d: sequence %d, want %d", i, r.Seq, c.want)
		}
	}
}

// Packets of other senders (RFC 8972, 4): what is not understood comes back
// with U, what is malformed with M, and the length never changes.
func TestReflectTLVs(t *testing.T) {
	base := strings.Repeat("00", BaseLen)
	for _, c := range []struct{ name, in, want string }{
		{"base packet", "", ""},
		{"TWAMP Light padding", "000000000000", "000000000000"},
		{"location is not understood", "80020004 01020304", "80020004 01020304"},
		{"flags are ours to set", "60020004 01020304", "80020004 01020304"},
		{"padding", "80010003 aabbcc", "00010003 aabbcc"},
		{"direct measurement", "8005000c 00000009 ffffffff ffffffff", "0005000c 00000009 00000002 00000001"},
		{"direct measurement of a wrong length", "80050008 0000000900000000 80010000", "40050008 0000000900000000 80010000"},
		{"counters of a wrong length", "80fb0004 00000000", "40fb0004 00000000"},
		{"notices of a wrong length", "80fa0005 0000000000", "40fa0005 0000000000"},
		{"longer than the packet", "80010000 80020005 01020304", "00010000 40020005 01020304"},
		{"half a header", "80010000 8002", "00010000 8002"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var state ReflectorState
			got, err := Reflect([]byte("x"), unhex(t, base+c.in), Counts{Tx: 1, Rx: 2}, at1, at1, 1, &state)
			if err != nil {
				t.Fatal(err)
			}
			if got[0] != 'x' {
				t.Error("dst was overwritten")
			}
			if tlvs := got[1+BaseLen:]; !bytes.Equal(tlvs, unhex(t, c.want)) {
				t.Errorf("got %x, want %s", tlvs, c.want)
			}
		})
	}
	var state ReflectorState
	if _, err := Reflect(nil, make([]byte, BaseLen-1), Counts{}, at1, at1, 1, &state); !errors.Is(err, ErrShort) {
		t.Errorf("short: %v", err)
	}
	if _, err := Reflect(nil, make([]byte, MaxLen+1), Counts{}, at1, at1, 1, &state); !errors.Is(err, ErrLong) {
		t.Errorf("long: %v", err)
	}
}

// Replies of reflectors that know less than we do.
func TestParseForeignReplies(t *testing.T) {
	base := strings.Repeat("00", BaseLen)
	for _, c := range []struct {
		name, tlvs string
		direct     bool
		err        error
	}{
		{"no TLVs", "", false, nil},
		{"not understood", "8005000c 000000010000000200000003", false, nil},
		{"called malformed", "4005000c 000000010000000200000003", false, nil},
		{"understood", "0005000c 000000010000000200000003", true, nil},
		{"truncated", "0005000c 0000", false, ErrTLV},
		{"zero padding", "00000000 0000", false, nil},
	} {
		r, err := ParseReply(unhex(t, base+c.tlvs))
		if !errors.Is(err, c.err) || r.HasDirect != c.direct {
			t.Errorf("%s: %+v, %v", c.name, r, err)
		}
	}
	ptp := make([]byte, BaseLen)
	ptp[offError] = 0x40
	if _, err := ParseReply(ptp); !errors.Is(err, ErrClock) {
		t.Errorf("PTP timestamps: %v", err)
	}
}

func TestTimestamp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Across the end of NTP's first era, 2036-02-07.
		a := time.Unix(rapid.Int64Range(1<<30, 1<<32).Draw(t, "sec"), rapid.Int64Range(0, 999_999_999).Draw(t, "nsec"))
		d := time.Duration(rapid.Int64Range(-1<<60, 1<<60).Draw(t, "d"))
		got := TimestampOf(a.Add(d)).Sub(TimestampOf(a))
		if diff := (got - d).Abs(); diff > 1 {
			t.Fatalf("%v + %v comes back as %v", a, d, got)
		}
	})
	if got := TimestampOf(time.Unix(-ntpEpoch*-1, 0)); got != 0 {
		t.Errorf("1900 is %x", got)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(unhex(f, requestHex))
	f.Add(AppendRequest(nil, Request{Pad: 100}))
	f.Add(make([]byte, BaseLen))
	f.Add(unhex(f, strings.Repeat("00", BaseLen)+"80fa0005 0000000000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		orig := bytes.Clone(b)
		var r Received
		err := ParseRequest(b, &r)
		var state ReflectorState
		reply, rerr := Reflect(nil, b, Counts{Epoch: 1, Tx: 2, Rx: 3}, at1, at1, 1, &state)
		if !bytes.Equal(b, orig) {
			t.Fatal("the request was written to")
		}
		if rerr != nil {
			if err == nil {
				t.Fatal("parsed, but not reflected")
			}
			return
		}
		if len(reply) != len(b) {
			t.Fatalf("%d octets reflected as %d", len(b), len(reply))
		}
		StampReply(reply, at1, 77)
		p, perr := ParseReply(reply)
		if err == nil && perr != nil {
			t.Fatalf("our reply does not parse: %v", perr)
		}
		if perr == nil && (p.HasDirect && p.RTx != 77 || p.HasCounts && p.Counts.Tx != 77) {
			t.Fatalf("stamp is lost: %+v", p)
		}
		if err == nil && r.HasCounts != p.HasCounts {
			t.Fatal("counters were not answered")
		}
	})
}

func FuzzParseReply(f *testing.F) {
	var state ReflectorState
	b, _ := Reflect(nil, unhex(f, requestHex), Counts{Epoch: 1}, at1, at1, 1, &state)
	f.Add(b)
	f.Add(make([]byte, BaseLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseReply(b)
		if err != nil && r != (Reply{}) {
			t.Fatal("half a reply with an error")
		}
		s := NewSession(Options{SSID: r.SSID}, at1)
		if req, ok := s.Next(at1, Counts{}); ok && err == nil && r.SenderSeq == req.Seq {
			res, ok := s.OnReply(b, at1.Add(time.Millisecond), Counts{Epoch: 1, Tx: 5, Rx: 6})
			if !ok || res.Probe.RTT < 0 {
				t.Fatalf("%+v, %v", res, ok)
			}
		}
	})
}
