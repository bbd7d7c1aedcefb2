package namespace

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// rig is one way to join two LANs.
type rig struct {
	name   string
	client netns
	server netip.Addr
	gbps   map[int][]float64 // by number of streams
}

// TestThroughput compares, in interleaved rounds of one run, TCP over the
// product with TCP over upstream wireguard-go and over kernel forwarding alone.
// All processes of all rigs share this machine: read the ratios, not the rates.
func TestThroughput(t *testing.T) {
	if os.Getenv("PATRONUS_BENCH") == "" {
		t.Skip("PATRONUS_BENCH is not set")
	}
	rounds := 3
	if n, err := strconv.Atoi(os.Getenv("PATRONUS_ROUNDS")); err == nil && n > 0 {
		rounds = n
	}
	rigs := []*rig{
		newRig(newWorld(t, plan{lan: "packet"}), "patronus, packet port"), newRig(newWorld(t, plan{lan: "tun"}), "patronus, tun port"),
		upstreamRig(t), kernelRig(t),
	}
	load := loadAverage(t)
	for round := range rounds {
		for _, streams := range []int{1, 4} {
			for _, r := range rigs {
				g := r.measure(t, streams)
				r.gbps[streams] = append(r.gbps[streams], g)
				t.Logf("round %d, %d streams, %s: %.2f Gb/s", round+1, streams, r.name, g)
			}
		}
	}
	table := report(rigs, rounds, load, loadAverage(t))
	t.Log("\n" + table)
	dir := "../out"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "throughput.md"), []byte(table), 0o644); err != nil {
		t.Fatal(err)
	}
}

// newRig starts an iperf3 server at site b of a world.
func newRig(w *world, name string) *rig {
	a, b := w.site("a"), w.site("b")
	spawn(w.t, b.host.command("iperf3", "-s"))
	return &rig{name: name, client: a.host, server: b.addr(4), gbps: map[int][]float64{}}
}

// upstreamRig forwards by the kernel into wireguard-go.
func upstreamRig(t *testing.T) *rig {
	w := build(t, plan{lan: "tun"})
	for i, s := range w.sites {
		peer := w.sites[1-i]
		name := fmt.Sprintf("pw%d%s", os.Getpid(), s.name)
		wireguard(t, s.gateway, name, 1420, "private-key", s.uplinks[0].file, "listen-port", "51820",
			"peer", peer.uplinks[0].key.Public().String(), "endpoint", netip.AddrPortFrom(peer.uplinks[0].addr(4), 51820).String(), "allowed-ips", "0.0.0.0/0")
		s.gateway.ip(t, fmt.Sprintf("route add 10.%d.0.0/16 dev %s", peer.n, name))
	}
	return newRig(w, "upstream wireguard-go")
}

// kernelRig forwards by the kernel, in the clear.
func kernelRig(t *testing.T) *rig {
	w := build(t, plan{lan: "tun"})
	for i, s := range w.sites {
		peer := w.sites[1-i]
		w.core.ip(t, fmt.Sprintf("route add 10.%d.0.0/16 via %s", s.n, s.uplinks[0].addr(4)))
		s.gateway.ip(t, fmt.Sprintf("route add 10.%d.0.0/16 via %s", peer.n, s.uplinks[0].router(4)))
	}
	return newRig(w, "kernel forwarding, no encryption")
}

// measure runs TCP for 3 s and returns what the receiver got, Gb/s.
func (r *rig) measure(t *testing.T, streams int) float64 {
	t.Helper()
	var result struct {
		Error string
		End   struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	eventually(t, 15*time.Second, "iperf3 over "+r.name, func() error {
		out, err := exec.Command("ip", "netns", "exec", string(r.client), "iperf3", "-c", r.server.String(), "-t", "3", "-O", "1",
			"-P", strconv.Itoa(streams), "-J", "--connect-timeout", "2000").Output()
		if jsonErr := json.Unmarshal(out, &result); jsonErr != nil {
			return fmt.Errorf("iperf3: %w: %w", err, jsonErr)
		}
		if result.Error != "" {
			return fmt.Errorf("iperf3: %s", result.Error)
		}
		return err
	})
	return result.End.Received.Rate / 1e9
}

// report is a table in Markdown: medians, spread, and ratios to upstream.
func report(rigs []*rig, rounds int, before, after string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "TCP by iperf3, %d interleaved rounds of 3 s, median [least-most] Gb/s; load average %s before, %s after.\n\n", rounds, before, after)
	b.WriteString("| | TCP 1 stream | / upstream | TCP 4 streams | / upstream |\n|---|---|---|---|---|\n")
	base := rigs[2]
	for _, r := range rigs {
		fmt.Fprintf(&b, "| %s |", r.name)
		for _, streams := range []int{1, 4} {
			g := r.gbps[streams]
			fmt.Fprintf(&b, " %.2f [%.2f-%.2f] | %.2f |", median(g), slices.Min(g), slices.Max(g), median(g)/median(base.gbps[streams]))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func median(v []float64) float64 {
	sorted := slices.Sorted(slices.Values(v))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func loadAverage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))[0]
}
