//go:build race

package policy

// raced says that the race detector is on: pools lose what they keep, so that
// memory says nothing.
const raced = true
