// Package benchstore owns the side-by-side measurement of stores, and the
// torture of ours: the same samples into our store, badger as one would begin
// with it, Prometheus' engine, VictoriaMetrics and InfluxDB, then the same
// questions to all of them, in one run on one machine.
//
// It asserts nothing about speed: it prints a table with the bars that we set
// ourselves, and writes it down. The torture tests assert: nothing acknowledged
// is lost and nothing wrong is served, whatever is done to process or files.
//
//	samples (one file) --> contender processes, one after the other, in chunks
//	                   --> questions, interleaved in rounds --> medians --> table, bars
//
// Concurrency: one goroutine measures; only one contender works at a time.
// Everything that is created is below one temporary directory, and processes
// end before Run returns.
package benchstore
