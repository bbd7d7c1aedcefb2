// Package control owns the configuration of the fabric as the dashboard keeps
// it: numbered revisions, each made by one change of one person.
//
// It decides nothing about packets: package policy says whether policies compile.
//
//	[Change] --> [Plane.Commit]: edit a copy -> check, compile -> revision n+1 and audit record, one transaction
//	                                                                 |
//	                 [Plane.Current] (atomic) <----------------------+---> [Plane.Changed]
//
// A change may be given to sites by stages: [Plane.For] is what each is to have,
// a [Conductor] leads from stage to stage, and a [Distributor] gives it to the
// sites. An [Enroller] makes sites of new appliances.
//
// A Plane is safe for concurrent use. Commits run one after another; readers
// never wait for them. Configurations are immutable and shared.
package control
