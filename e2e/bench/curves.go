package bench

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// curve is one benchmark with points by a parameter.
type curve struct {
	name   string
	points []string
	values map[string]map[string][]float64 // by point and unit
}

// curves are the benchmarks of netstack/bench_test.go, and what their
// parameter is.
func curves() [][2]string {
	return [][2]string{
		{"PacketSize", "payload of a packet, bytes; 1372x44 is read from the LAN as superpackets"},
		{"Flows", "flows that take turns, packet by packet"},
		{"Rules", "rules, of which the last admits; one flow, so they are asked once"},
		{"NewFlow", "rules, of which the last admits; every packet is the first of a flow"},
		{"Peers", "sites configured besides our own, of which one has traffic"},
	}
}

// barLength is the longest bar of a text curve.
const barLength = 50

// Curves reads the output of go test -bench and writes a table with bars for
// each of the curves in it.
func Curves(in io.Reader, out io.Writer) error {
	found, err := parseCurves(in)
	if err != nil {
		return err
	}
	for _, want := range curves() {
		c := found[want[0]]
		if c == nil {
			continue
		}
		fmt.Fprintf(out, "\n### %s\n\nAgainst %s.\n\n```\n%12s %12s %12s %10s\n", want[0], want[1], "", "cpu ns/pkt", "wall ns/pkt", "allocs/op")
		most := 0.0
		for _, p := range c.points {
			most = max(most, c.least(p, "cpu-ns/pkt"))
		}
		for _, p := range c.points {
			cpu := c.least(p, "cpu-ns/pkt")
			bar := strings.Repeat("#", max(1, int(barLength*cpu/max(most, 1))))
			fmt.Fprintf(out, "%12s %12.0f %12.0f %10.0f  %s\n", p, cpu, c.least(p, "ns/pkt"), c.least(p, "allocs/op"), bar)
		}
		fmt.Fprint(out, "```\n")
	}
	return nil
}

// least is the smallest value of the runs: what other work on the machine adds
// is never negative.
func (c *curve) least(point, unit string) float64 {
	if v := c.values[point][unit]; len(v) > 0 {
		return slices.Min(v)
	}
	return 0
}

// parseCurves reads lines like
//
//	BenchmarkFlows/1000-2   100000   1703 ns/op   1668 cpu-ns/pkt
func parseCurves(in io.Reader) (map[string]*curve, error) {
	all := map[string]*curve{}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name, point, ok := strings.Cut(strings.TrimPrefix(f[0], "Benchmark"), "/")
		if !ok {
			continue
		}
		if i := strings.LastIndexByte(point, '-'); i > 0 {
			point = point[:i] // GOMAXPROCS
		}
		c := all[name]
		if c == nil {
			c = &curve{name: name, values: map[string]map[string][]float64{}}
			all[name] = c
		}
		if c.values[point] == nil {
			c.points = append(c.points, point)
			c.values[point] = map[string][]float64{}
		}
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				c.values[point][f[i+1]] = append(c.values[point][f[i+1]], v)
			}
		}
	}
	return all, lines.Err()
}
