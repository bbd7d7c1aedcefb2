// Package client owns the typed client of the dashboard's API: one method for
// each route of the table, written by a generator so that none is missing.
//
// It knows no terminal and keeps no files. A [Client] is safe for concurrent
// use. What a route may be asked besides its body goes into [Option]s; what is
// refused comes back as a [dashboard.Problem], which names the fields.
package client
