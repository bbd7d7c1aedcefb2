package bench

import (
	"strings"
	"testing"
)

func sample() *Result {
	r := newResult(3)
	for _, c := range []struct {
		name string
		tcp  []float64
		rtt  float64
	}{{"wireguard-go", []float64{1, 9, 2}, 100}, {"patronus-tun", []float64{4, 3, 100}, 120}} {
		row := r.row(&contender{name: c.name})
		for _, v := range c.tcp {
			row.add("tcp4", v)
		}
		row.add("rtt50", c.rtt)
	}
	return r
}

func TestMedian(t *testing.T) {
	r := sample()
	for _, c := range []struct {
		values []float64
		want   float64
		ok     bool
	}{{nil, 0, false}, {[]float64{3}, 3, true}, {[]float64{1, 9, 2}, 2, true}, {[]float64{4, 1}, 2.5, true}} {
		r.Rows[0].Values["x"] = c.values
		if m, ok := r.Rows[0].median("x"); m != c.want || ok != c.ok {
			t.Errorf("median of %v is %v, %v; want %v, %v", c.values, m, ok, c.want, c.ok)
		}
	}
}

func TestReached(t *testing.T) {
	r := sample()
	for _, c := range []struct {
		f    floor
		want string
	}{
		{floor{"tcp4", base, 1.6, 2.1, false}, "2.00 reached"},
		{floor{"tcp4", base, 2.0, 2.1, false}, "2.00 reached"},
		{floor{"tcp4", base, 2.5, 2.1, false}, "2.00 missed"},
		{floor{"rtt50", base, 1.1, 0.9, true}, "1.20 missed"},
		{floor{"rtt50", base, 1.2, 0.9, true}, "1.20 reached"},
		{floor{"rtt50", base, 1.3, 0.9, true}, "1.20 reached"},
		{floor{"udp200", base, 1.3, 0.9, true}, "-"},
		{floor{"tcp4", "tailscale", 1.3, 0.9, true}, "-"},
	} {
		if got := r.reached(c.f, "patronus-tun"); got != c.want {
			t.Errorf("%+v: %q, want %q", c.f, got, c.want)
		}
	}
}

func TestCurves(t *testing.T) {
	var b strings.Builder
	err := Curves(strings.NewReader(`goos: linux
BenchmarkFlows/1-2     100  1703 ns/op  2.5 Gb/s  1000 cpu-ns/pkt  1500 ns/pkt  0 allocs/op
BenchmarkFlows/1000-2  100  1703 ns/op  2.5 Gb/s  2000 cpu-ns/pkt  1600 ns/pkt  1 allocs/op
BenchmarkOther-2       100  1703 ns/op
PASS
`), &b)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"### Flows", "1000         2000", strings.Repeat("#", barLength), " " + strings.Repeat("#", barLength/2) + "\n"}
	for _, w := range want {
		if !strings.Contains(b.String(), w) {
			t.Errorf("no %q in\n%s", w, b.String())
		}
	}
}

// The rules are what the report says they are.
func TestHundredRules(t *testing.T) {
	if n := strings.Count(hundredRules(), "- {from:"); n != 100 {
		t.Errorf("%d ingress rules, want 100", n)
	}
}
