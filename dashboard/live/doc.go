// Package live owns the fan-out of what happens now to whoever watches: metrics
// of paths, tick by tick, and events.
//
// It speaks no WebSocket and knows no user: who may see what is a function that
// the subscriber brings. It keeps the last events for those who come back, and
// nothing on disk.
//
//	Publish (never waits) --> Hub: numbered, encoded once --> Subscription: newest value of each path, queue of events --> Next
//
// A Hub is safe for concurrent use. A Subscription belongs to one goroutine,
// the one that calls Next; it is woken, never fed: a slow one loses values that
// newer ones replace and the oldest events, which are counted, and nobody waits
// for it.
package live
