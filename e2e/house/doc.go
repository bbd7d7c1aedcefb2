// Package house owns the tests that guard the source tree itself: which package
// may import which, what every package and file must have, and that the
// documentation says what the program does.
//
// It has no code of its own. Each test names the rule and the reason in its
// failure. `go test ./e2e/house/ -update` writes the generated reference pages
// anew.
package house
