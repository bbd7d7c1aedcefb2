package load

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestQuantile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(0, 10), 1, 50).Draw(t, "values")
		p := rapid.Float64Range(0, 1).Draw(t, "p")
		sorted := slices.Sorted(slices.Values(values))
		if got, want := Quantile(values, p), sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]; got != want {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}

func TestData(t *testing.T) {
	s := Shape{Paths: 20, Ticks: 300, Step: 10_000, Start: 1_760_000_000_000}
	var texts [][]byte
	for i := range 2 {
		name := filepath.Join(t.TempDir(), "data")
		if err := Write(name, s, 7); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text)
		if i > 0 {
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		got, err := ReadShape(f)
		if err != nil || got != s {
			t.Fatalf("%+v, %v", got, err)
		}
		ticks := 0
		if err := Each(f, s, 100, 200, func(at int64, values []int32) error {
			if at != s.At(100+ticks) || len(values) != 20*Metrics {
				t.Fatalf("tick %d at %d with %d values", ticks, at, len(values))
			}
			for i := 0; i < len(values); i += Metrics {
				if v := values[i+Latency]; v < 100 || v > 30_000 {
					t.Fatalf("latency %d", v)
				}
				if v := values[i+Score]; v < 0 || v > 100 {
					t.Fatalf("score %d", v)
				}
			}
			ticks++
			return nil
		}); err != nil || ticks != 100 {
			t.Fatalf("%d ticks, %v", ticks, err)
		}
	}
	if !slices.Equal(texts[0], texts[1]) {
		t.Error("the same seed gave other samples")
	}
}
