// Package configs owns what an operator asks for: the typed configuration of a
// site, its validation, and the numbered, signed revisions made of it.
//
// It is pure data. It opens no socket, starts no goroutine and knows nothing of
// packets; everything that runs is built from a value of this package that was
// validated once.
package configs
