// Package collect owns the pulling of history: one collector for each site of
// the fabric, its own site included, that keeps the dashboard's store as
// complete as the site's own.
//
// It does not decide which sites there are or whether this appliance is a
// dashboard (the node does), nor how a record is kept (appliance/store).
//
//	site's store          records, numbered from 1 to head
//	  1 ................................................ head
//	  [ gone by retention ][ missing ][ have ][ damaged ]   [ tail ->
//	                              <- backfill, newest first
//
// A collector holds two streams. The tail, from the head at the time of
// connecting on, brings unsealed ticks and whatever is sealed from then on. The
// backfill asks for the ranges that are missing below it, newest first; at most
// [Options.Backfills] sites do so at a time. Which ranges are there is a set of
// intervals, kept in the same transaction as the records that it tells of, so a
// collector that dies at any moment goes on where it was, and what comes twice
// or out of order does no harm.
//
// Each collector is one goroutine that holds two more while it is connected;
// [Fleet.Run] owns them all. A Fleet is safe for concurrent use.
package collect
