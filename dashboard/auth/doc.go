// Package auth owns who may do what on the dashboard: users, their passwords,
// sessions and tokens, roles and permissions.
//
// It speaks no HTTP and keeps no configuration of the fabric. What must survive
// a restart is in the ledger; what a request needs is read from memory.
//
//	password --> [Directory.Login] --> session (cookie) --.
//	                                   JWT, refresh token --+--> [Directory.Authenticate...] --> [Actor] --> May, Sees
//	API token ---------------------------------------------'
//
// A Directory is safe for concurrent use. It has one writer at a time; every
// change is durable when the method returns, and takes effect at once: a
// session or token that was revoked is refused by the next request.
package auth
