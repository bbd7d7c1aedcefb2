// Package configs owns what an operator asks for: the typed configuration of a
// site, its validation, the values derived from it, the keys it names, and the
// numbered, signed revisions that carry it.
//
// It does not run anything: it opens no socket, starts no goroutine and knows
// nothing of packets. The only files it touches are those of keys and of the
// revision [Store]. What a policy means is for netstack/policy to say.
//
// Every configuration comes in by one of three doors, and each fills in the
// defaults, checks the whole and reports all problems at once:
//
//	YAML file --Parse--> +----------+
//	Go value  --New----> | *Config  | --Canonical--> JSON body of a Revision
//	JSON body --Decode-> +----------+                  | Sign
//	                          ^                        v
//	                          +---Revision.Config--- Store (two slots)
//
// A checked Config is immutable and safe to share, and so is a Revision. A
// Store may be used concurrently.
package configs
