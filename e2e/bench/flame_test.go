package bench

import (
	"strings"
	"testing"
	"time"
)

const traces = `File: patronus
Type: cpu
Time: 2026-11-24 00:00:00 UTC
Duration: 5s, Total samples = 40ms
-----------+-------------------------------------------------------
      10ms   leaf (inline)
             middle
             main
-----------+-------------------------------------------------------
      30ms   other<T>
             main
-----------+-------------------------------------------------------
`

func TestParseTraces(t *testing.T) {
	root, err := parseTraces(strings.NewReader(traces))
	if err != nil {
		t.Fatal(err)
	}
	top := root.calls["main"]
	if root.total != 40*time.Millisecond || top == nil || top.total != 40*time.Millisecond || root.depth() != 4 {
		t.Fatalf("root %v, depth %d, main %+v", root.total, root.depth(), top)
	}
	if leaf := top.calls["middle"].calls["leaf (inline)"]; leaf == nil || leaf.total != 10*time.Millisecond {
		t.Errorf("leaf %+v", leaf)
	}
}

func TestFlame(t *testing.T) {
	var b strings.Builder
	if err := Flame(strings.NewReader(traces), "x & y", &b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"x &amp; y", "other&lt;T&gt;: 30ms, 75.0 %", "</svg>"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if Flame(strings.NewReader("nothing"), "", &b) == nil {
		t.Error("a flame graph of nothing")
	}
}
