// Package board owns the tests of a whole fabric with its dashboard: what is
// asked by the API happens to packets, and is seen where people look.
package board
