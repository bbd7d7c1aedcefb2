package namespace

import "testing"

// slack is how far beyond its bar a figure must be to fail a test. The bars are
// for an appliance of its own; here two gateways, their hosts and the test share
// the processors, and a stall of the machine is no defect of the product. Every
// figure is logged beside its bar, met or missed.
const slack = 4

// measured logs a figure beside its bar, and fails the test if it is out of
// all proportion.
func measured[T ~int | ~int64 | ~uint32 | ~float64](t *testing.T, what string, got, bar T) {
	t.Helper()
	switch {
	case got <= bar:
		t.Logf("%s: %v, bar %v: met", what, got, bar)
	case got <= slack*bar:
		t.Logf("%s: %v, bar %v: MISSED", what, got, bar)
	default:
		t.Errorf("%s: %v, bar %v: missed by far", what, got, bar)
	}
}
