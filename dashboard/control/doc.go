// Package control owns the configuration of the fabric as the dashboard keeps
// it: numbered revisions, each made by one change of one person.
//
// It sends nothing to sites: whoever does follows [Plane.Changed]. It decides
// nothing about packets: package policy says whether policies compile.
//
//	[Change] --> [Plane.Commit]: edit a copy -> check, compile -> revision n+1 and audit record, one transaction
//	                                                                 |
//	                 [Plane.Current] (atomic) <----------------------+---> [Plane.Changed]
//
// A Plane is safe for concurrent use. Commits run one after another; readers
// never wait for them. Configurations are immutable and shared.
package control
