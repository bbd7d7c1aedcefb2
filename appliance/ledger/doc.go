// Package ledger owns what an appliance must not forget or have altered:
// configuration, revisions, users, tokens, and the audit log of who changed
// them. Every commit is on the disk when Update returns.
//
// It does not know what the values mean, keeps no metrics (see appliance/store,
// a separate database with other needs) and holds no private keys. It never
// starts empty in place of something that it cannot read: Open then refuses,
// puts the files aside and says what to do.
//
//	Update --+-- Tx: Get, Put, Delete, Scan, Audit   optimistic, repeated on conflict
//	         |
//	         v  one commit at a time
//	   badger (synced): values in envelopes | audit chain | head
//	         v
//	   HEAD (synced): the same head again, in two slots
//	         v
//	   Watch: changed keys, in the order of commits
//
// The head counts commits and live keys and holds a sum over all of them and
// the end of the audit chain. So what a damaged file would make vanish, return
// or go back is found, not only what it would alter. FORMAT.md has the layout.
//
// Concurrency: everything may be called from several goroutines, except the
// methods of a Tx, which belong to the goroutine of its function. The package
// starts no goroutine of its own; the owner runs Run.
package ledger
