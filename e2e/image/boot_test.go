package image

import (
	"os"
	"slices"
	"strconv"
	"testing"
)

// TestBootTime compares the emulator's CPU seconds from power to our status
// page with those to an init that does nothing, in turns. The bar is printed; a
// miss by more than half is a failure, because hosts differ.
func TestBootTime(t *testing.T) {
	requirements(t, "qemu-system-x86_64", "dpkg-deb", "apt-get")
	if _, err := os.Stat(firmware); err != nil {
		t.Skipf("no firmware: %v", err)
	}
	pairs := 2
	if n, err := strconv.Atoi(os.Getenv("PATRONUS_BOOT_PAIRS")); err == nil {
		pairs = n
	}
	b := newBuilder(t)
	ours := newMachine(t, "ours", b.make(1000, "disk", ".raw"))
	trivial := newMachine(t, "trivial", b.make(1001, "disk", ".raw", "-init", b.trivial))
	var ratios []float64
	for range pairs {
		trivial.boot()
		trivial.expect(`trivial init has started`, patience)
		base := trivial.cpu().Seconds()
		trivial.cut()
		ours.boot()
		ours.expect(`Patronus v1000 `, patience)
		own := ours.cpu().Seconds()
		ours.cut()
		ratios = append(ratios, own/base)
		t.Logf("trivial %.1f s, ours %.1f s of emulator CPU: %.2f", base, own, own/base)
	}
	slices.Sort(ratios)
	median := ratios[len(ratios)/2]
	t.Logf("median of %d pairs: %.2f times [bar 1.3]", pairs, median)
	if median > 1.3*1.5 {
		t.Errorf("%.2f times a trivial init", median)
	}
}
