package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// base is the contender that others are compared with.
const base = "wireguard-go"

// metric is a column of the table.
type metric struct {
	key, title, unit string
	digits           int
}

func metrics() []metric {
	return []metric{
		{"tcp1", "TCP, 1 stream", "Gb/s", 2},
		{"tcp4", "TCP, 4 streams", "Gb/s", 2},
		{"udp200", "UDP 200 B", "kpps", 1},
		{"udp1372", "UDP 1372 B", "kpps", 1},
		{"rtt50", "RTT p50", "us", 0},
		{"rtt99", "RTT p99", "us", 0},
		{"cpu1", "CPU, TCP 1", "s/GB", 2},
		{"cpu4", "CPU, TCP 4", "s/GB", 2},
		{"machine4", "machine, TCP 4", "s/GB", 2},
		{"pss", "memory (PSS)", "MiB", 0},
		{"idle", "idle CPU", "%", 1},
	}
}

// Machine is where a run took place.
type Machine struct {
	CPUs   int    `json:"cpus"`
	Model  string `json:"model"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	// Load is the load average before and after.
	Load [2]string `json:"load"`
}

// Row is what was measured of one contender.
type Row struct {
	Name   string               `json:"name"`
	What   string               `json:"what"`
	Values map[string][]float64 `json:"values"` // by metric, one per round
}

func (r *Row) add(metric string, v float64) { r.Values[metric] = append(r.Values[metric], v) }

// median is that of a metric; ok is false if it was not measured.
func (r *Row) median(metric string) (m float64, ok bool) {
	v := slices.Clone(r.Values[metric])
	if len(v) == 0 {
		return 0, false
	}
	slices.Sort(v)
	if n := len(v) / 2; len(v)%2 == 0 {
		return (v[n-1] + v[n]) / 2, true
	}
	return v[len(v)/2], true
}

// Result is one run.
type Result struct {
	At       time.Time `json:"at"`
	Took     string    `json:"took"`
	Machine  Machine   `json:"machine"`
	Rounds   int       `json:"rounds"`
	Rows     []*Row    `json:"rows"`
	LeftOut  []string  `json:"left_out,omitempty"`
	Failures []string  `json:"failures,omitempty"`
}

func newResult(rounds int) *Result {
	var u unix.Utsname
	kernel := "unknown"
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Release[:])
	}
	return &Result{At: time.Now(), Rounds: rounds, Machine: Machine{
		CPUs: runtime.NumCPU(), Model: cpuModel(), Kernel: kernel, Go: runtime.Version(), Load: [2]string{loadAverage(), ""},
	}}
}

// row is the contender's, made if need be.
func (r *Result) row(c *contender) *Row {
	if have := r.find(c.name); have != nil {
		return have
	}
	row := &Row{Name: c.name, What: c.what, Values: map[string][]float64{}}
	r.Rows = append(r.Rows, row)
	return row
}

func (r *Result) find(name string) *Row {
	for _, row := range r.Rows {
		if row.Name == name {
			return row
		}
	}
	return nil
}

func (r *Result) finish() {
	r.Took = time.Since(r.At).Round(time.Second).String()
	r.Machine.Load[1] = loadAverage()
}

// WriteJSON writes all values of all rounds.
func (r *Result) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(r)
}

// Markdown is the report: facts of the machine, medians, ratios, spreads.
func (r *Result) Markdown() string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "%d rounds, interleaved, %s, took %s. %d CPUs (%s), Linux %s, %s; load average %s before, %s after.\n",
		r.Rounds, r.At.UTC().Format("2006-01-02 15:04 MST"), r.Took, m.CPUs, m.Model, m.Kernel, m.Go, m.Load[0], m.Load[1])
	b.WriteString("\nAll hosts, gateways and load generators share these CPUs: compare rows, not figures of other machines.\n")
	b.WriteString("\nMedians:\n\n")
	r.table(&b, func(row *Row, c metric) string {
		v, ok := row.median(c.key)
		if !ok {
			return "-"
		}
		return fmt.Sprintf("%.*f", c.digits, v)
	})
	if r.find(base) != nil {
		fmt.Fprintf(&b, "\nRatio to %s of the same run:\n\n", base)
		r.table(&b, func(row *Row, c metric) string {
			v, ok := row.median(c.key)
			of, also := r.find(base).median(c.key)
			if !ok || !also || of == 0 {
				return "-"
			}
			return fmt.Sprintf("%.2f", v/of)
		})
	}
	b.WriteString("\nLeast and greatest of the rounds:\n\n")
	r.table(&b, func(row *Row, c metric) string {
		v := row.Values[c.key]
		if len(v) == 0 {
			return "-"
		}
		return fmt.Sprintf("%.*f-%.*f", c.digits, slices.Min(v), c.digits, slices.Max(v))
	})
	r.floors(&b)
	b.WriteString("\nRows:\n\n")
	for _, row := range r.Rows {
		fmt.Fprintf(&b, "- `%s`: %s\n", row.Name, row.What)
	}
	b.WriteString(`
Columns: TCP by iperf3, 3 s. UDP is the highest rate that host A offers with less than 1 % missing at host B 50 ms
later, found by a bounded search. RTT is a UDP ping-pong of 64 bytes, one at a time. CPU is user and system time of all
processes of both gateways; machine is everything that was not idle, load generators and softirq included. Memory is of
one gateway, all its processes, after the load. Idle CPU is of both gateways while nothing passes.
`)
	for _, l := range []struct {
		title string
		lines []string
	}{{"Left out", r.LeftOut}, {"Failed measurements", r.Failures}} {
		if len(l.lines) > 0 {
			fmt.Fprintf(&b, "\n%s:\n\n", l.title)
			for _, line := range l.lines {
				fmt.Fprintf(&b, "- %s\n", strings.ReplaceAll(line, "\n", "; "))
			}
		}
	}
	return b.String()
}

func (r *Result) table(b *strings.Builder, cell func(*Row, metric) string) {
	b.WriteString("| |")
	for _, c := range metrics() {
		fmt.Fprintf(b, " %s, %s |", c.title, c.unit)
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(metrics())) + "\n")
	for _, row := range r.Rows {
		fmt.Fprintf(b, "| %s |", row.Name)
		for _, c := range metrics() {
			fmt.Fprintf(b, " %s |", cell(row, c))
		}
		b.WriteString("\n")
	}
}

// floor is what a row must reach, as a ratio to another one.
type floor struct {
	metric, to  string
	floor, goal float64
	atMost      bool
}

func floors() []floor {
	return []floor{
		{"tcp4", base, 1.6, 2.1, false},
		{"tcp1", base, 1.4, 1.8, false},
		{"udp200", base, 2.0, 3.0, false},
		{"udp1372", base, 1.3, 2.0, false},
		{"rtt50", base, 1.1, 0.9, true},
		{"cpu4", base, 0.65, 0.45, true},
		{"tcp1", "tailscale", 0.95, 1.2, false},
		{"tcp4", "tailscale", 0.95, 1.2, false},
		{"tcp1", "netstack", 4, 6, false},
		{"tcp4", "netstack", 4, 6, false},
	}
}

// floors sets each floor beside what was reached.
func (r *Result) floors(b *strings.Builder) {
	b.WriteString("\nFloors and goals:\n\n| ratio | floor | goal | patronus-tun | patronus-packet |\n|---|---:|---:|---:|---:|\n")
	for _, f := range floors() {
		sign := "at least"
		if f.atMost {
			sign = "at most"
		}
		fmt.Fprintf(b, "| %s to %s | %s %.2f | %.2f |", f.metric, f.to, sign, f.floor, f.goal)
		for _, name := range []string{"patronus-tun", "patronus-packet"} {
			fmt.Fprintf(b, " %s |", r.reached(f, name))
		}
		b.WriteString("\n")
	}
}

func (r *Result) reached(f floor, name string) string {
	row, of := r.find(name), r.find(f.to)
	if row == nil || of == nil {
		return "-"
	}
	v, ok := row.median(f.metric)
	w, also := of.median(f.metric)
	if !ok || !also || w == 0 {
		return "-"
	}
	ratio := v / w
	word := "missed"
	if ratio >= f.floor != f.atMost || ratio == f.floor {
		word = "reached"
	}
	return fmt.Sprintf("%.2f %s", ratio, word)
}
