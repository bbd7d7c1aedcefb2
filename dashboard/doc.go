// Package dashboard owns the HTTP side of the dashboard role: the REST API,
// the live streams, GraphQL and the pages, for people and programs who have
// proved who they are.
//
// It moves no packet and holds no key of a tunnel: what the fabric is and does
// it reads through the small interfaces of fleet.go; what is to change goes
// through [Plane] as one revision at a time. Users and sessions are package
// auth's, fan-out to live streams is package live's.
//
//	request -> guard (host, path, framing) -> route (the one table) -> who? -> rate -> may? -> handler -> answer or Problem
//
// A Server is safe for concurrent use. Handlers start no goroutines, but a live
// stream has one that reads, and ends with it. What handlers read is immutable (a view is built once per change, and lists are encoded
// once per view).
package dashboard
