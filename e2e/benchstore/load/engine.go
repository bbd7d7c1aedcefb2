package load

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Engine is a store under measurement. Times are Unix ms, To excluded.
type Engine interface {
	// Tick stores the values of all paths at one time.
	Tick(at int64, values []int32) error
	// Flush brings what was stored into the form in which it stays.
	Flush() error
	// Sizes are the bytes of the raw samples as they stay, and of everything.
	Sizes() (raw, all int64, err error)
	// Last is the number of paths with a last latency, and the sum of those.
	Last() (Found, error)
	// Hour reads the raw latency of a path.
	Hour(path int, from, to int64) (Found, error)
	// Site reads the mean latency of a site's paths by minute.
	Site(site int, from, to int64) (Found, error)
	// Fleet is the 95th percentile of all raw latencies of all paths.
	Fleet(from, to int64) (Found, error)
}

// Found is the answer to a question: how many values it is made of, and their
// sum, or the percentile.
type Found struct {
	N     int     `json:"n"`
	Value float64 `json:"value"`
}

// Command is one line to a contender's process.
type Command struct {
	Do       string `json:"do"`             // ingest, flush, sizes, last, hour, site, fleet
	File     string `json:"file,omitempty"` // of samples
	From, To int    // ticks
	Which    int    // path or site
	Repeat   int    // how often a question is asked; the fastest counts
}

// Answer is one line from it. CPU and Wall are seconds.
type Answer struct {
	Found
	CPU  float64 `json:"cpu"`
	Wall float64 `json:"wall"`
	RSS  int64   `json:"rss"`  // now, bytes
	Peak int64   `json:"peak"` // ever, bytes
	Raw  int64   `json:"raw,omitempty"`
	All  int64   `json:"all,omitempty"`
	Err  string  `json:"err,omitempty"`
}

// Serve answers commands until in ends.
func Serve(e Engine, in io.Reader, out io.Writer) error {
	s := bufio.NewScanner(in)
	w := json.NewEncoder(out)
	for s.Scan() {
		var c Command
		if err := json.Unmarshal(s.Bytes(), &c); err != nil {
			return fmt.Errorf("command: %w", err)
		}
		if err := w.Encode(Do(e, &c, os.Getpid())); err != nil {
			return err
		}
	}
	return s.Err()
}

// Do answers one command; pid is the process whose CPU and memory count.
func Do(e Engine, c *Command, pid int) (a Answer) {
	shape, f, err := open(c.File)
	if err != nil {
		a.Err = err.Error()
		return a
	}
	if f != nil {
		defer f.Close() // only read
	}
	cpu, began := CPU(pid), time.Now()
	from, to := shape.At(c.From), shape.At(c.To)
	switch c.Do {
	case "ingest":
		err = Each(f, shape, c.From, c.To, e.Tick)
	case "flush":
		err = e.Flush()
	case "sizes":
		a.Raw, a.All, err = e.Sizes()
	case "last":
		a.Found, a.Wall, err = fastest(c.Repeat, e.Last)
	case "hour":
		a.Found, a.Wall, err = fastest(c.Repeat, func() (Found, error) { return e.Hour(c.Which, from, to) })
	case "site":
		a.Found, a.Wall, err = fastest(c.Repeat, func() (Found, error) { return e.Site(c.Which, from, to) })
	case "fleet":
		a.Found, a.Wall, err = fastest(c.Repeat, func() (Found, error) { return e.Fleet(from, to) })
	default:
		err = fmt.Errorf("no such command: %q", c.Do)
	}
	if a.Wall == 0 {
		a.Wall = time.Since(began).Seconds()
	}
	a.CPU = CPU(pid) - cpu
	a.RSS, a.Peak = Memory(pid)
	if err != nil {
		a.Err = err.Error()
	}
	return a
}

func open(name string) (Shape, *os.File, error) {
	if name == "" {
		return Shape{}, nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return Shape{}, nil, err
	}
	s, err := ReadShape(f)
	return s, f, err
}

func fastest(n int, ask func() (Found, error)) (found Found, wall float64, err error) {
	for i := range max(n, 1) {
		began := time.Now()
		if found, err = ask(); err != nil {
			return found, wall, err
		}
		if d := time.Since(began).Seconds(); i == 0 || d < wall {
			wall = d
		}
	}
	return found, wall, nil
}

// CPU is what a process used, seconds: of another one to 10 ms.
func CPU(pid int) float64 {
	if pid != os.Getpid() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0
		}
		// After the name, which may hold anything, utime and stime are 12th and 13th.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) < 13 {
			return 0
		}
		user, err := strconv.Atoi(fields[11])
		system, err2 := strconv.Atoi(fields[12])
		if err != nil || err2 != nil {
			return 0
		}
		const perSecond = 100 // USER_HZ, fixed for user space
		return float64(user+system) / perSecond
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// Memory is the resident set of a process, now and at its greatest, bytes. Files
// that are mapped count as far as they are in memory.
func Memory(pid int) (now, peak int64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(text)) {
		var kb int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kb); err == nil {
			now = kb << 10
		} else if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kb); err == nil {
			peak = kb << 10
		}
	}
	return now, peak
}

// Anonymous is the resident memory of a process without pages of files, MiB.
func Anonymous(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		var kb int64
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &kb); err == nil {
			return float64(kb) / 1024
		}
	}
	return 0
}

// Size is how much the files below a directory take on the disk, bytes.
func Size(dir string) (int64, error) {
	var all int64
	files, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		name := dir + "/" + f.Name()
		if f.IsDir() {
			n, err := Size(name)
			if err != nil {
				return 0, err
			}
			all += n
			continue
		}
		var st syscall.Stat_t
		if err := syscall.Stat(name, &st); err != nil {
			continue // it went meanwhile
		}
		all += st.Blocks * 512
	}
	return all, nil
}

// Quantile is the p-th quantile of values, which it reorders, by the nearest
// rank.
func Quantile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return 0
	}
	k := min(int(p*float64(len(values))), len(values)-1)
	lo, hi := 0, len(values)-1
	for lo < hi {
		pivot := values[lo+(hi-lo)/2]
		i, j := lo, hi
		for i <= j {
			for values[i] < pivot {
				i++
			}
			for values[j] > pivot {
				j--
			}
			if i <= j {
				values[i], values[j] = values[j], values[i]
				i++
				j--
			}
		}
		switch {
		case k <= j:
			hi = j
		case k >= i:
			lo = i
		default:
			return values[k]
		}
	}
	return values[k]
}

// Minutes are the means of one path's values by minute; values come in order.
type Minutes struct {
	minute int64
	sum    float64
	n      int
	found  Found
}

// Add takes a value in.
func (m *Minutes) Add(at int64, value float64) {
	if minute := at / 60_000; minute != m.minute {
		m.end()
		m.minute = minute
	}
	m.sum += value
	m.n++
}

func (m *Minutes) end() {
	if m.n > 0 {
		m.found.N++
		m.found.Value += m.sum / float64(m.n)
	}
	m.sum, m.n = 0, 0
}

// Into adds the means to what was found.
func (m *Minutes) Into(f *Found) {
	m.end()
	f.N += m.found.N
	f.Value += m.found.Value
}
