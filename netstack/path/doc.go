// Package path owns what is known of a path and which path a flow takes: its
// identity, State, Quality and Score, and the steering decision.
//
// It measures nothing itself: probe results and counters come in as values
// (package probe makes them), transitions and samples go out as values. There
// is no goroutine, clock, socket or global; time is always a parameter.
//
//	Probe, Counts, bytes                            Candidate (snapshot)
//	      |                                              |
//	      v            every second                      v
//	  (*Tracker) -----> Tick -----> Sample         Steer(class, candidates,
//	      |               |                              hash, current)
//	      |               +-- Standing per class ---^    |
//	      +--> *Transition (Down at once, on the         v
//	           third missing probe)                 winner, Why
//
// Concurrency: a Tracker belongs to the goroutine that ticks it. Classes,
// Class and Candidate are immutable once built; Steer and Match may be called
// from any number of goroutines and do not allocate.
package path
