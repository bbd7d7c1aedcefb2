// Package policy owns the answer to "may this flow pass?": Kubernetes
// NetworkPolicy and ClusterNetworkPolicy, parsed, compiled and evaluated.
//
// It is the only evaluator there is: the packet path, explain, simulation,
// replay and the command line all call [Ruleset.EvaluateSide]. It keeps no
// state of flows (package flow does), answers no packet (the engine does) and
// reads no file: it is a pure core.
//
//	policies (YAML) --ParsePolicy--> Object --\
//	namespaces, host endpoints (labels) -------+-- Compiler.Apply --> *Ruleset (immutable, numbered)
//	                                                                     |
//	packet.Key --------------------------------------------------> Evaluate --> Decision
//
//	src --LPM--> identity --> egress program:  Admin rules | NetworkPolicy rules | Baseline rules
//	dst --LPM--> identity --> ingress program:    ...                      (each: ports, peer bitset, address ranges)
//
// Endpoints with the same namespace, labels and named ports share an identity;
// selectors are bitsets over identities and are never expanded per address.
//
// A [Compiler] has one owner and is not safe for concurrent use. A [Ruleset]
// never changes: publish it with one atomic store and read it from anywhere.
package policy
