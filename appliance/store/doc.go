// Package store owns what a site remembers: samples of its paths, flow records
// with their decisions, events and the past states of a site, in Badger and an
// append-only log beside it.
//
// It does not hold configuration, users, tokens or the audit trail (those are
// in a store of their own with other promises), it does not open sockets, and
// it judges nothing.
//
//	Append --> log (one synced write) --> heads, pending     Last, Tail
//	                                          |
//	                          Run: each hour seal, each minute flush
//	                                          v
//	                blocks, flows, events, totals, states (Badger)  --> Range, Flows, ...
//	                                          |                     --> Records (change feed)
//	                                      retention
//
// A [Store] is safe for concurrent use. Slices that it returns belong to the
// caller; slices that it is given may be reused after the call.
package store
