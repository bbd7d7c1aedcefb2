// Package policy owns the proof that what policy says is what packets meet:
// two engines on a virtual internet enforce random policies, and every packet
// is delivered exactly if simulation says so. It has tests only.
package policy
