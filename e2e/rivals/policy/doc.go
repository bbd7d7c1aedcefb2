// Package policy compares netstack/policy with the matcher of Cyclonus on the
// same flows: verdicts and time. It is a module of its own, so that the
// product's go.mod does not see Cyclonus. It has no code but its tests.
package policy
