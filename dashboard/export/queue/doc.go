// Package queue owns what waits on disk for an engine that is slow or down:
// records in segment files, one cursor for each reader, and an exact account
// of what had to go.
//
//	Append ──> group commit ──> 0000000000000007.seg   one fsync per group
//	                            0000000000000008.seg
//	                            0000000000000009.seg <── written now
//	                                  ^        ^
//	                     cursor "influx"      cursor "archive"
//	Next ──> records after the cursor ──> Ack moves it, Fail leaves it
//
// A segment that every cursor has passed is removed. When the segments would
// outgrow the bound, or the file system its reserve, the oldest segment goes,
// read or not, and what a reader still had to get from it is counted as its
// [Loss]. A file cut short by a crash ends at its last whole record; a damaged
// record is skipped and counted: see DESIGN.md for the layout.
//
// It does not know what a record holds, and does not send anything.
//
// A Queue is safe for concurrent use. A Reader belongs to one goroutine.
package queue
