package store

import (
	"math"
	"slices"
)

// roller computes rollups from rows in order of time. It is not safe for
// concurrent use.
type roller struct {
	values []int64
}

// rollup is one metric in one step, in stored units.
type rollup struct {
	count               int64
	min, max, mean, p95 int64
}

// one computes a rollup of numbers that may be missing. The 95th percentile is
// that of nearest rank.
func (r *roller) one(col []int64) rollup {
	r.values = r.values[:0]
	sum := int64(0)
	for _, v := range col {
		if v != missing {
			r.values = append(r.values, v)
			sum += v
		}
	}
	n := len(r.values)
	if n == 0 {
		return rollup{}
	}
	slices.Sort(r.values)
	return rollup{
		count: int64(n), min: r.values[0], max: r.values[n-1],
		mean: int64(math.Round(float64(sum) / float64(n))), p95: r.values[nearestRank(n, 95)],
	}
}

// nearestRank is the index of the p-th percentile of n sorted values.
func nearestRank(n, p int) int { return (n*p+99)/100 - 1 }

// roll appends to out one row for each step of raw that has rows.
func (r *roller) roll(out *grid, raw *grid, step int64) {
	at := raw.cols[0]
	rows := 0
	for i := range at {
		if i == 0 || floor(at[i], step) != floor(at[i-1], step) {
			rows++
		}
	}
	out.resize(rollupColumns, rows)
	row := 0
	for i := 0; i < len(at); {
		start := floor(at[i], step)
		j := i + 1
		for j < len(at) && at[j] < start+step {
			j++
		}
		out.cols[0][row] = start
		for m := range NumMetrics {
			out.putRollup(row, m, r.one(raw.cols[2+m][i:j]))
		}
		row++
		i = j
	}
}

func (g *grid) putRollup(row, m int, v rollup) {
	c := g.cols[1+rollupParts*m:]
	c[partCount][row] = v.count
	if v.count == 0 {
		for _, p := range [...]int{partMean, partBelow, partAbove, partP95} {
			c[p][row] = missing
		}
		return
	}
	c[partMean][row] = v.mean
	c[partBelow][row] = v.mean - v.min
	c[partAbove][row] = v.max - v.mean
	c[partP95][row] = v.max - v.p95
}

// rollupOf reads one metric of a rollup from its parts.
func rollupOf(parts *[rollupParts]int64) rollup {
	if parts[partCount] == 0 {
		return rollup{}
	}
	mean := parts[partMean]
	return rollup{
		count: parts[partCount], mean: mean,
		min: mean - parts[partBelow], max: mean + parts[partAbove], p95: mean + parts[partAbove] - parts[partP95],
	}
}

// mergeGrids is all rows of a and b in order of time; where both have a row,
// a's. added are the rows of the result that only b has.
func mergeGrids(a, b *grid) (out grid, added []int) {
	var order []struct{ from, row int }
	i, j := 0, 0
	for i < a.n || j < b.n {
		switch {
		case j == b.n || i < a.n && a.cols[0][i] < b.cols[0][j]:
			order = append(order, struct{ from, row int }{0, i})
			i++
		case i < a.n && a.cols[0][i] == b.cols[0][j]:
			j++
		default:
			added = append(added, len(order))
			order = append(order, struct{ from, row int }{1, j})
			j++
		}
	}
	out.resize(len(a.cols), len(order))
	from := [...]*grid{a, b}
	for k, o := range order {
		for c := range out.cols {
			out.cols[c][k] = from[o.from].cols[c][o.row]
		}
	}
	return out, added
}
