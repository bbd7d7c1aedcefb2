// Package flow owns the table of conversations: who talks to whom, in which
// TCP state, how much, over which path and under which version of the rules.
//
// It judges nothing: it neither decodes packets, nor evaluates policy, nor
// chooses a path. It keeps what the engine decided next to the conversation,
// so that the next packet finds it with one lookup and one load. It has no
// goroutine and no clock of its own: every call takes now, monotonic
// nanoseconds, and the engine calls [Table.Expire] from its tick.
//
// A [Table] is safe for concurrent use. Lookups and counting take no lock;
// inserting and removing lock one shard for a bounded time. A [Flow] belongs to
// the table and is shared: its key never changes and everything else in it is
// atomic. It stays valid, as ordinary memory, after the table has dropped it.
//
//	packet.Key ---- symmetric hash (seeded): both directions the same ----+
//	                                                                      |
//	shards   0              1              2              3               v
//	       [mutex, hand]  [mutex, hand]  [mutex, hand]  [mutex, hand]   bucket
//	index  |B|B|B|B|B|B|B||B|B|B|B|B|B|B||B|B|B|B|B|B|B||B|B|B|B|B|B|B|
//	                                |
//	       one cache line:  | 7 tags, passed | *Flow | ... 7 ... | *Flow |
//	                                             |
//	       two cache lines: | key  binding  seen  state |   <- all that a lookup reads
//	                        | packets, bytes each way; record, created, ... |
package flow
