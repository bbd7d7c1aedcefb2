// Package load owns what all stores of the comparison have in common: the
// samples, in a file that every contender reads, and the few words that the
// measurement and a contender's process say to each other.
//
// It imports nothing of ours, so that rivals in modules of their own can use it.
//
//	benchstore --stdin--> contender: Open, Ingest FROM TO, Flush, Last, Hour, Site, Fleet
//	           <-stdout-- one Answer each: CPU, wall, RSS, bytes, the value found
//
// Concurrency: a contender answers one question after the other.
package load
