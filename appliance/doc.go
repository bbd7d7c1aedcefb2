// Package appliance owns one node: it is the composition root of the binary.
//
// `patronus run` is a supervisor (supervise.go) with two children of the same
// executable: the edge (edge.go) owns packets and keys, the node (node.go) owns
// everything that may die without traffic noticing. They speak over one unix
// socket through the small interface in control.go. The lab and the tests run
// both in one process over an in-memory connection: same interface.
//
//	              supervisor: config file -> signed revision; descriptors
//	               |  SCM_RIGHTS (broker.go)          |
//	               v                                   v
//	edge: netstack.Engine, keys,  <-- edge.sock --  node: history, agent API,
//	two good revisions in files                     dashboard role; no keys
//	               ^
//	               +-- edge.sock -- patronus status, paths, flows, reload
//
// Stop order: the node first, because it asks the edge for connections; then
// the edge; the supervisor last, because it holds the descriptors.
package appliance

// Version is set by the linker.
var Version = "unknown"
