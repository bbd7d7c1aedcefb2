// Command fleet is a dashboard with an invented fabric behind it, for tests of
// the pages: the real server, users, ledger and configuration; sites, history
// and events come from a seeded generator through the server's own interfaces.
//
//	go run ./e2e/browser/fleet -world three -listen 127.0.0.1:0
//
// It prints one line of JSON with its address and the setup code, and ends with
// its standard input. Worlds: empty, three, thousand, hostile (three sites whose
// every free text is an attack), fresh (no users yet).
package main
