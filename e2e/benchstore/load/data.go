package load

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
)

// The values of a path at a tick, as integers in units of Scale.
const (
	Latency = iota
	Jitter
	Loss
	Tx
	Score
	Metrics // how many there are
)

// Names of the values, and what one step of the integer is in the unit that
// engines for floats are given.
var (
	Names = [Metrics]string{"latency_ms", "jitter_ms", "loss_pct", "tx_mbps", "score"}
	Scale = [Metrics]float64{0.01, 0.01, 0.001, 0.001, 1}
)

// Shape says how much there is. A sample is one value of one path at one time.
type Shape struct {
	Paths uint32
	Ticks uint32
	Step  uint32 // ms
	Start int64  // Unix ms of the first tick
}

// Samples is how many values there are.
func (s Shape) Samples() int { return int(s.Paths) * int(s.Ticks) * Metrics }

// At is the time of a tick, Unix ms.
func (s Shape) At(tick int) int64 { return s.Start + int64(tick)*int64(s.Step) }

// Value is an integer in its unit, rounded as a person would write it.
func Value(metric int, v int32) float64 {
	return math.Round(float64(v)*Scale[metric]*1000) / 1000
}

// PathsPerSite is how many of the paths belong to one site.
const PathsPerSite = 10

// Site and Path name the i-th path.
func Site(i int) string { return fmt.Sprintf("site%04d", i/PathsPerSite) }

// Path is unique in the fleet.
func Path(i int) string {
	return fmt.Sprintf("%s.wan%d~hq.wan0", Site(i), i%PathsPerSite)
}

// link is the state of one path that the samples come from.
type link struct {
	r                       *rand.Rand
	base, delay, jit, rate  float64
	spike, lossy, scoreHold int
	score                   int32
}

func (l *link) next(out []int32) {
	// Delay is a slow walk around a base, with noise, and rare excursions.
	l.delay += 0.02*(l.base-l.delay) + l.r.NormFloat64()*l.base*0.003
	noise := math.Abs(l.r.NormFloat64()) * l.base * 0.01
	if l.spike > 0 {
		l.spike--
		noise += l.base * (0.5 + l.r.Float64())
	} else if l.r.IntN(2000) == 0 {
		l.spike = 3 + l.r.IntN(30)
	}
	l.jit += (noise - l.jit) / 16
	// Loss is none for hours, and then some percent for minutes: 100 probes a tick.
	loss := 0
	if l.lossy > 0 {
		l.lossy--
		loss = l.r.IntN(6)
	} else if l.r.IntN(3000) == 0 {
		l.lossy = 5 + l.r.IntN(60)
	}
	l.rate = min(max(l.rate*math.Exp(l.r.NormFloat64()*0.05), 100), 900_000)
	if l.scoreHold == 0 || l.lossy > 0 {
		l.scoreHold = 30 + l.r.IntN(100)
		l.score = int32(max(0, min(100, 98-l.delay/400-float64(10*loss))))
	}
	l.scoreHold--
	out[Latency] = int32(l.delay + noise)
	out[Jitter] = int32(l.jit)
	out[Loss] = int32(loss) * 1000
	out[Tx] = int32(l.rate)
	out[Score] = l.score
}

const magic = "PBS1"

// Write makes the file of a shape; the same seed gives the same samples.
func Write(name string, s Shape, seed uint64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	links := make([]link, s.Paths)
	for i := range links {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		base := 500 + r.Float64()*8000
		links[i] = link{r: r, base: base, delay: base, jit: base / 100, rate: 1000 + r.Float64()*50_000}
	}
	head := binary.LittleEndian.AppendUint32([]byte(magic), s.Paths)
	head = binary.LittleEndian.AppendUint32(head, s.Ticks)
	head = binary.LittleEndian.AppendUint32(head, s.Step)
	head = binary.LittleEndian.AppendUint64(head, uint64(s.Start))
	_, err = w.Write(head)
	row := make([]int32, Metrics)
	out := make([]byte, 4*Metrics)
	for range s.Ticks {
		for i := range links {
			links[i].next(row)
			for m, v := range row {
				binary.LittleEndian.PutUint32(out[4*m:], uint32(v))
			}
			if err == nil {
				_, err = w.Write(out)
			}
		}
	}
	return errors.Join(err, w.Flush(), f.Close())
}

// headSize is the length of the file's head.
const headSize = 4 + 4 + 4 + 4 + 8

// ReadShape is the shape of a file.
func ReadShape(f io.ReaderAt) (Shape, error) {
	b := make([]byte, headSize)
	if _, err := f.ReadAt(b, 0); err != nil {
		return Shape{}, fmt.Errorf("read samples: %w", err)
	}
	if string(b[:4]) != magic {
		return Shape{}, errors.New("not a file of samples")
	}
	return Shape{
		Paths: binary.LittleEndian.Uint32(b[4:]), Ticks: binary.LittleEndian.Uint32(b[8:]),
		Step: binary.LittleEndian.Uint32(b[12:]), Start: int64(binary.LittleEndian.Uint64(b[16:])),
	}, nil
}

// Each calls f with the ticks from from to before to. values has Metrics
// integers for each path, one path after the other; borrowed: until f returns.
func Each(f io.ReaderAt, s Shape, from, to int, each func(at int64, values []int32) error) error {
	row := int64(s.Paths) * Metrics * 4
	r := bufio.NewReaderSize(io.NewSectionReader(f, headSize+int64(from)*row, int64(to-from)*row), 1<<18)
	raw := make([]byte, row)
	values := make([]int32, int(s.Paths)*Metrics)
	for tick := from; tick < to; tick++ {
		if _, err := io.ReadFull(r, raw); err != nil {
			return fmt.Errorf("read samples: %w", err)
		}
		for i := range values {
			values[i] = int32(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		if err := each(s.At(tick), values); err != nil {
			return err
		}
	}
	return nil
}
