package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// userHZ is the unit of times in /proc, ticks a second (proc(5)).
const userHZ = 100

// usage is what the gateways' processes have used.
type usage struct {
	cpu float64 // seconds, of both gateways, ended children included
	all float64 // seconds that the machine was not idle
	pss float64 // bytes of memory, of both gateways; what processes share counts once
}

func (w *world) usage() usage {
	u := usage{all: busySeconds()}
	for _, n := range []netns{w.a.gateway, w.b.gateway} {
		for _, pid := range n.pids() {
			u.cpu += processTime(pid)
			u.pss += processMemory(pid)
		}
	}
	return u
}

// processTime is zero for a process that has just ended.
func processTime(pid int) (cpu float64) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	// The name may hold anything but ends with the last parenthesis.
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	for _, i := range []int{11, 12, 13, 14} { // utime, stime, cutime, cstime
		cpu += number(f, i) / userHZ
	}
	return cpu
}

// processMemory is the proportional set size in bytes: a page that n processes
// map, as those of one program do, counts to each as its n-th part (proc(5),
// smaps_rollup). A contender of three processes is not charged three times for
// its program.
func processMemory(pid int) float64 {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			return number(strings.Fields(rest), 0) * 1024
		}
	}
	return 0
}

func number(f []string, i int) float64 {
	if i >= len(f) {
		return 0
	}
	n, err := strconv.ParseFloat(f[i], 64)
	if err != nil {
		return 0
	}
	return n
}

// busySeconds is the time that all CPUs together were not idle.
func busySeconds() float64 {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	f := strings.Fields(line)
	busy := 0.0
	for _, i := range []int{1, 2, 3, 6, 7, 8} { // user, nice, system, irq, softirq, steal
		busy += number(f, i)
	}
	return busy / userHZ
}

// loadAverage is the first figure of /proc/loadavg.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// cpuModel names the processor.
func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return fmt.Sprintf("unknown (%d bytes of cpuinfo)", len(text))
}
