// Package simulate owns what-if questions over the policy evaluator: what would
// a candidate set of policies do to given flows, to all pairs of endpoints, and
// to flows that were recorded; and what is wrong with a set of policies.
//
// It decides nothing itself: every verdict comes from package policy, the same
// that the packet path asks. It enforces nothing and stores nothing.
//
//	policies + candidate --> World --+--> Flows    given flows, before and after
//	                                 +--> Matrix   who reaches whom on which ports, and what changes
//	                                 +--> Lint     findings, each with a flow as proof
//	recorded flows (JSON lines, packed) --> Replay --> Report
//
// Endpoints that no policy can tell apart are judged once: questions about all
// pairs cost as much as there are different endpoints, not addresses. A replay
// judges each record under the labels it was decided under, not today's.
//
// A [World] is immutable and safe for concurrent use; [Replay] runs its own
// goroutines and ends with them.
package simulate
