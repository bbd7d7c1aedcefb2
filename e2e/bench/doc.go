// Package bench owns the side-by-side measurement: the same two hosts behind
// the same two gateways, with one kind of gateway after the other, in one run
// on one machine.
//
// It does not time single functions (go test -bench does) and asserts nothing
// about speed: it prints a table and writes it down.
//
//	host A --veth-- gateway A ==veth== gateway B --veth-- host B
//	10.1.0.10       10.1.0.1  192.0.2.0/30  10.2.0.1     10.2.0.10
//
// Every contender has four namespaces of its own, all exist at the same time,
// and only one of them carries load. Rounds are interleaved: each contender is
// measured once before any is measured again, in an order that turns by one
// each round, so that a slow minute of the machine hits all of them.
//
// Concurrency: one goroutine runs the measurement; load generators have theirs
// and end before the call that started them returns. Sockets are opened on a
// thread inside the namespace that they belong to. Everything that is created
// (namespaces, processes, a temporary directory) is gone after Close.
package bench
