package benchstore

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"patronus/e2e/benchstore/load"
)

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	return strings.Join(strings.Fields(string(text))[:1], "")
}

func (c *contender) samples(s load.Shape) float64 {
	return float64(c.to-c.from) * float64(s.Paths) * load.Metrics
}

// perCPU is samples per CPU second, 0 when it was not measured.
func (c *contender) perCPU(s load.Shape) float64 {
	if c == nil || c.unavailable != "" || c.ingest.CPU == 0 {
		return 0
	}
	return c.samples(s) / c.ingest.CPU
}

func (c *contender) rawBytes(s load.Shape) float64 {
	if c == nil || c.unavailable != "" {
		return 0
	}
	return float64(c.sizes.Raw) / c.samples(s)
}

// median is the median time of a question, seconds, 0 when it failed.
func (c *contender) median(q string) float64 {
	if c == nil || c.unavailable != "" {
		return 0
	}
	var all []float64
	for _, a := range c.questions[q] {
		if a.Err == "" {
			all = append(all, a.Wall)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// bar is a goal. value is NaN when it could not be measured.
type bar struct {
	text   string
	value  float64
	unit   string
	least  bool // value must be at least limit, else at most
	limit  float64
	detail string
}

func (b bar) verdict() string {
	switch {
	case math.IsNaN(b.value) || math.IsInf(b.value, 0):
		return "not measured"
	case b.least == (b.value >= b.limit) || b.value == b.limit:
		return "met"
	default:
		return "MISSED"
	}
}

// bars are those of the store's goals that this run measures.
func (r *Result) bars() []bar {
	by := map[string]*contender{}
	for _, c := range r.All {
		by[c.name] = c
	}
	s := r.Fleet
	ours, naive, prom, vm := by["ours"], by["naive badger"], by["prometheus tsdb"], by["victoriametrics"]
	ratio := func(a, b float64) float64 {
		if a == 0 || b == 0 {
			return math.NaN()
		}
		return a / b
	}
	fleetError := math.NaN()
	if as := ours.questions["fleet"]; len(as) > 0 && as[0].Err == "" {
		fleetError = 100 * math.Abs(as[0].Value-r.Exact["fleet"].Value) / r.Exact["fleet"].Value
	}
	ms := func(q string) float64 { return 1000 * ours.median(q) }
	return []bar{
		{"raw block bytes per sample, of Prometheus tsdb's", ratio(ours.rawBytes(s), prom.rawBytes(s)), "x", false, 0.25, ""},
		{"raw block bytes per sample, of VictoriaMetrics'", ratio(ours.rawBytes(s), vm.rawBytes(s)), "x", false, 1.2, ""},
		{"ingest samples per CPU second, of naive badger's", ratio(ours.perCPU(s), naive.perCPU(s)), "x", true, 20, ""},
		{"ingest samples per CPU second, of Prometheus tsdb's", ratio(ours.perCPU(s), prom.perCPU(s)), "x", true, 0.8, ""},
		{"ingest samples per CPU second, of VictoriaMetrics' (HTTP included)", ratio(ours.perCPU(s), vm.perCPU(s)), "x", true, 2, ""},
		{fmt.Sprintf("last value of every path (%d), from memory", r.WideLast.N), cmp.Or(1000*r.WideLast.Wall, math.NaN()), "ms", false, 5, ""},
		{"1 h raw of one path, faster than naive", ratio(naive.median("hour"), ours.median("hour")), "x", true, 30, ""},
		{"1 h raw of one path, not slower than Prometheus tsdb", ratio(prom.median("hour"), ours.median("hour")), "x", true, 1, fmt.Sprintf("ours %.3f ms", ms("hour"))},
		{"fleet p95 over 24 h, faster than Prometheus tsdb from raw", ratio(prom.median("fleet"), ours.median("fleet")), "x", true, 100, fmt.Sprintf("ours %.2f ms", ms("fleet"))},
		{"fleet p95 over 24 h, error", fleetError, "%", false, 1, ""},
		{fmt.Sprintf("90 d of one path at 1 h steps (%d points)", r.NinetyPoints), float64(r.Ninety.Microseconds()) / 1000, "ms", false, 5, ""},
		{fmt.Sprintf("peak RSS ingesting %d paths", r.Wide.Paths), float64(r.WideIngest.Peak) / (1 << 20), "MiB", false, 400, ""},
	}
}

// Missed is how many bars were missed.
func (r *Result) Missed() (n int) {
	for _, b := range r.bars() {
		if b.verdict() == "MISSED" {
			n++
		}
	}
	return n
}

// right compares an answer with the exact one: the percentiles of others than
// ours may be by a histogram or a part of the data, so that is told, not judged.
func (r *Result) right(c *contender, q string) string {
	as := c.questions[q]
	if len(as) == 0 || as[0].Err != "" {
		return "-"
	}
	want := r.Exact[q]
	off := 100 * math.Abs(as[0].Value-want.Value) / want.Value
	if as[0].N > 0 && as[0].N != want.N {
		return fmt.Sprintf("%d of %d", as[0].N, want.N)
	}
	return fmt.Sprintf("%.2g %%", off)
}

// Markdown writes the tables.
func (r *Result) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Stores, measured side by side\n\nMade by `make bench-store`. How, and why so: [DESIGN.md](DESIGN.md).\n\n")
	fmt.Fprintf(&b, "%s, took %s. %d CPUs, %s, Linux/%s; load average %s before, %s after: CPU seconds are reliable, times are upper bounds.\n\n",
		r.At.Format("2006-01-02 15:04 UTC"), r.Took.Round(time.Second), runtime.NumCPU(), runtime.Version(), runtime.GOARCH, r.Before, r.After)
	fmt.Fprintf(&b, "%d paths, %d values each, every %d s for 24 h: %.1f million samples, synthetic. One sample is one value of one path at one time.\n\n",
		r.Fleet.Paths, load.Metrics, r.Fleet.Step/1000, float64(r.Fleet.Samples())/1e6)
	b.WriteString("| | samples, million | samples per CPU s | raw bytes per sample | all bytes per sample | peak RSS, MiB | last of all, ms | 1 h raw of a path, ms | a site at 1 min for 1 h, ms | fleet p95 24 h, ms |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, c := range r.All {
		if c.unavailable != "" {
			fmt.Fprintf(&b, "| %s | not measured: %s |||||||||\n", c.name, oneLine(c.unavailable))
			continue
		}
		n := c.samples(r.Fleet)
		fmt.Fprintf(&b, "| %s | %.1f | %.0f k | %.2f | %.2f | %d |", c.name, n/1e6, c.perCPU(r.Fleet)/1000,
			c.rawBytes(r.Fleet), float64(c.sizes.All)/n, c.ingest.Peak>>20)
		for _, q := range questions {
			if t := c.median(q); t > 0 {
				fmt.Fprintf(&b, " %.3f |", 1000*t)
			} else {
				b.WriteString(" failed |")
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("\nAnswers beside those computed from the samples (difference, or how many of how many values):\n\n| | last | hour | site | fleet |\n|---|---:|---:|---:|---:|\n")
	for _, c := range r.All {
		if c.unavailable != "" {
			continue
		}
		fmt.Fprintf(&b, "| %s |", c.name)
		for _, q := range questions {
			fmt.Fprintf(&b, " %s |", r.right(c, q))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	for _, c := range r.All {
		fmt.Fprintf(&b, "- %s: %s\n", c.name, c.note)
	}
	fmt.Fprintf(&b, "\n%d paths into ours: %.1f million samples, %.0f k per CPU s, peak RSS %d MiB.\n\nBars:\n\n| bar | | measured | |\n|---|---:|---:|---|\n",
		r.Wide.Paths, float64(r.Wide.Samples())/1e6, float64(r.Wide.Samples())/cmp.Or(r.WideIngest.CPU, 1)/1000, r.WideIngest.Peak>>20)
	for _, x := range r.bars() {
		most := "at most"
		if x.least {
			most = "at least"
		}
		fmt.Fprintf(&b, "| %s | %s %g %s | %.3g %s | %s %s |\n", x.text, most, x.limit, x.unit, x.value, x.unit, x.verdict(), x.detail)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func oneLine(s string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(s, "|", "/")), " ")
}
