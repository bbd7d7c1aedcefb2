package path_test

import (
	"encoding/json"
	"errors"
	"math"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"patronus/configs"
	"patronus/netstack/path"
)

const ms = time.Millisecond

func TestParseID(t *testing.T) {
	want := path.Ends{LocalSite: "hq", LocalUplink: "wan0", RemoteSite: "east", RemoteUplink: "lte0"}
	got, err := path.ParseID("hq.wan0~east.lte0")
	if err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	if id := got.Reverse().ID(); id != "east.lte0~hq.wan0" {
		t.Errorf("reverse is %q", id)
	}
	if path.NewID("hq", "wan0", "east", "lte0") != want.ID() {
		t.Error("NewID and Ends.ID differ")
	}
	for _, s := range []string{
		"", "~", "hq.wan0", "hq~east", "hq.wan0~east", "hq.wan0~east.", ".wan0~east.lte0", "hq.wan0~east.lte0~x.y",
		"hq.wan0.x~east.lte0", "hq.wan 0~east.lte0", "hq.wan0~east.lte/0", "hq.wän0~east.lte0",
		strings.Repeat("a", 64) + ".wan0~east.lte0",
	} {
		if e, err := path.ParseID(s); !errors.Is(err, path.ErrID) {
			t.Errorf("%q: %+v, %v", s, e, err)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("hq.wan0~east.lte0")
	f.Add("a.b~c")
	f.Add("~.~.")
	f.Fuzz(func(t *testing.T, s string) {
		e, err := path.ParseID(s)
		if err != nil {
			if e != (path.Ends{}) {
				t.Fatal("half an id with an error")
			}
			return
		}
		if string(e.ID()) != s {
			t.Fatalf("%q comes back as %q", s, e.ID())
		}
		if url.PathEscape(s) != s {
			t.Fatalf("%q does not fit in a URL", s)
		}
	})
}

// Published values of the Wilson interval, and its limits.
func TestNewLoss(t *testing.T) {
	for _, c := range []struct {
		lost, total        uint64
		percent, low, high float64
	}{
		{0, 0, 0, 0, 0},
		{0, 100, 0, 0, 3.6994},
		{10, 100, 10, 5.5229, 17.4366},
		{1, 10, 10, 1.7876, 40.4150},
		{100, 100, 100, 96.3006, 100},
		{9, 3, 100, 43.8503, 100}, // more lost than sent: capped
	} {
		l := path.NewLoss(c.lost, c.total)
		for _, d := range []float64{l.Percent - c.percent, l.Low - c.low, l.High - c.high} {
			if math.Abs(d) > 0.001 {
				t.Errorf("%d/%d: %+v, want %+v", c.lost, c.total, l, c)
				break
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64Range(1, 1<<40).Draw(t, "total")
		l := path.NewLoss(rapid.Uint64Range(0, n).Draw(t, "lost"), n)
		if !(0 <= l.Low && l.Low <= l.Percent && l.Percent <= l.High && l.High <= 100) {
			t.Fatalf("%+v", l)
		}
	})
}

func voice() configs.SLA {
	sla, _ := path.PresetSLA(path.PresetPatronus, path.VoiceClass)
	return sla
}

func TestScoreOf(t *testing.T) {
	q := func(delay, pdv time.Duration, lost uint64) path.Quality {
		return path.Quality{Delay: delay, PDVp95: pdv, LossIn: path.NewLoss(lost, 1000), LossOut: path.NewLoss(0, 1000), Samples: 200}
	}
	bulk, _ := path.PresetSLA(path.PresetPatronus, path.BulkClass)
	for _, c := range []struct {
		name   string
		q      path.Quality
		sla    configs.SLA
		want   path.Score
		metric string
	}{
		{"no data is not 100", path.Quality{}, voice(), path.NoScore, ""},
		{"all good", q(80*ms, 10*ms, 3), voice(), 100, ""},
		{"delay half way", q(165*ms, 10*ms, 0), voice(), 50, path.MetricDelay},
		{"pdv limits", q(165*ms, 40*ms, 0), voice(), 25, path.MetricPDV},
		{"loss limits", q(165*ms, 40*ms, 20), voice(), 25, path.MetricPDV},
		{"loss of the worse direction", q(0, 0, 20), voice(), 37, path.MetricLoss},
		{"beyond bad", q(time.Second, 0, 0), voice(), 0, path.MetricDelay},
		{"bulk knows loss only", q(time.Hour, time.Hour, 55), bulk, 50, path.MetricLoss},
		{"nothing is judged", q(time.Hour, 0, 1000), configs.SLA{}, 100, ""},
		{"a step", q(101*ms, 0, 0), configs.SLA{DelayGood: configs.Duration(100 * ms), Delay: configs.Duration(100 * ms)}, 0, path.MetricDelay},
		{"loss alone", path.Quality{LossOut: path.NewLoss(0, 10)}, voice(), 100, ""},
	} {
		if got, metric := path.ScoreOf(c.q, c.sla); got != c.want || metric != c.metric {
			t.Errorf("%s: %d because of %q, want %d, %q", c.name, got, metric, c.want, c.metric)
		}
	}
}

// Worse in any metric is never a better score.
func TestScoreIsMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) path.Quality {
			return path.Quality{
				Delay:   time.Duration(rapid.IntRange(0, 400).Draw(t, name+" delay")) * ms,
				PDVp95:  time.Duration(rapid.IntRange(0, 100).Draw(t, name+" pdv")) * ms,
				LossOut: path.NewLoss(uint64(rapid.IntRange(0, 50).Draw(t, name+" loss")), 1000),
				Samples: 1,
			}
		}
		a, b := draw("a"), draw("b")
		worse := path.Quality{
			Delay: max(a.Delay, b.Delay), PDVp95: max(a.PDVp95, b.PDVp95),
			LossOut: path.NewLoss(max(a.LossOut.Lost, b.LossOut.Lost), 1000), Samples: 1,
		}
		sa, _ := path.ScoreOf(a, voice())
		sw, _ := path.ScoreOf(worse, voice())
		if sw > sa || sw < 0 || sa > 100 {
			t.Fatalf("%d, worse %d", sa, sw)
		}
	})
}

func TestScoreJSON(t *testing.T) {
	b, err := json.Marshal([]path.Score{path.NoScore, 0, 100})
	if err != nil || string(b) != "[null,0,100]" {
		t.Fatalf("%s, %v", b, err)
	}
	var got []path.Score
	if err := json.Unmarshal(b, &got); err != nil || got[0] != path.NoScore || got[2] != 100 {
		t.Errorf("%v, %v", got, err)
	}
	for _, s := range []string{"101", "-1", `"7"`, "1.5"} {
		var v path.Score
		if err := json.Unmarshal([]byte(s), &v); err == nil {
			t.Errorf("%s was read as %d", s, v)
		}
	}
}

func TestSampleJSON(t *testing.T) {
	tr := path.NewTracker("hq.wan0~east.lte0", path.Options{})
	at := time.Date(2026, 11, 24, 14, 32, 15, 0, time.UTC)
	s, _ := tr.Tick(at)
	s.Classes = s.Classes[:1]
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"path_id":"hq.wan0~east.lte0","timestamp":"2026-11-24T14:32:15Z","state":"unknown","metrics":{` +
		`"latency_ms":null,"jitter_ms":null,"pdv_p95_ms":null,` +
		`"packet_loss_pct":null,"packet_loss_pct_low":null,"packet_loss_pct_high":null,` +
		`"loss_out_pct":null,"loss_out_pct_low":null,"loss_out_pct_high":null,` +
		`"loss_in_pct":null,"loss_in_pct_low":null,"loss_in_pct_high":null,` +
		`"bandwidth_mbps":0,"tx_mbps":0,"rx_mbps":0,"reordered":0,"duplicates":0,"score":null},` +
		`"classes":[{"class":"voice","score":null}]}`
	if d := cmp.Diff(want, string(b)); d != "" {
		t.Error(d)
	}
	s.State, s.Score, s.Metric = path.Up, 98, path.MetricLoss
	s.Quality = path.Quality{
		Delay: 12300 * time.Microsecond, Jitter3550: 2100 * time.Microsecond, PDVp95: 4 * ms, Samples: 200,
		LossOut: path.NewLoss(5, 10_000), LossIn: path.NewLoss(0, 10_000), TxRate: 987.5e6, RxRate: 1e6, MTU: 1420,
	}
	b, err = json.Marshal(s.Metrics())
	if err != nil {
		t.Fatal(err)
	}
	want = `{"latency_ms":12.3,"jitter_ms":2.1,"pdv_p95_ms":4,` +
		`"packet_loss_pct":0.05,"packet_loss_pct_low":0.021,"packet_loss_pct_high":0.117,` +
		`"loss_out_pct":0.05,"loss_out_pct_low":0.021,"loss_out_pct_high":0.117,` +
		`"loss_in_pct":0,"loss_in_pct_low":0,"loss_in_pct_high":0.038,` +
		`"bandwidth_mbps":987.5,"tx_mbps":987.5,"rx_mbps":1,"reordered":0,"duplicates":0,"mtu":1420,"score":98}`
	if d := cmp.Diff(want, string(b)); d != "" {
		t.Error(d)
	}
	var m path.Metrics
	if err := json.Unmarshal(b, &m); err != nil || m != s.Metrics() && m.Latency != 12.3 {
		t.Errorf("read back: %+v, %v", m, err)
	}
}

func TestStateText(t *testing.T) {
	for _, s := range []path.State{path.Unknown, path.Up, path.Degraded, path.Down} {
		b, _ := s.MarshalText()
		var got path.State
		if err := got.UnmarshalText(b); err != nil || got != s {
			t.Errorf("%v: %v, %v", s, got, err)
		}
	}
	var s path.State
	if s.UnmarshalText([]byte("sideways")) == nil {
		t.Error("sideways was read")
	}
	if path.State(9).String() == "" || path.Cause(99).String() == "" || path.Why(99).String() == "" {
		t.Error("an unknown value has no name")
	}
}

// RFC 2439: the third flap in quick succession suppresses, and the penalty
// decays by half a minute by minute.
func TestDamper(t *testing.T) {
	var d path.Damper
	now := time.Unix(1_800_000_000, 0)
	for i, want := range []bool{false, false, true} {
		d.Flap(now)
		if got := d.Suppressed(now); got != want {
			t.Errorf("after flap %d: suppressed %v", i+1, got)
		}
		now = now.Add(time.Second)
	}
	if p := d.Penalty(now.Add(time.Minute)); math.Abs(p-d.Penalty(now)) > 3000 || p > 1600 || p < 1400 {
		t.Errorf("penalty %.0f a minute later", p)
	}
	if !d.Suppressed(now.Add(110 * time.Second)) {
		t.Error("reused above the limit")
	}
	if d.Suppressed(now.Add(125 * time.Second)) {
		t.Error("not reused below the limit")
	}
	// However long it flaps, it is reused three half-lives after the end.
	for range 1000 {
		now = now.Add(500 * ms)
		d.Flap(now)
	}
	if d.Suppressed(now.Add(181 * time.Second)) {
		t.Error("suppressed for over three half-lives")
	}
}
