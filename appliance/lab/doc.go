// Package lab owns the fabric that fits in one process: real appliances on a
// virtual internet, for a first look, for tests and for rehearsals.
//
// Every site is a whole appliance.Edge with its own WireGuard devices and
// gVisor stack. The uplinks are UDP sockets on loopback; a relay between them
// adds delay, jitter, loss, rate and MTU. Each site's LAN is a cable with one
// virtual host on it, whose traffic is real TCP and UDP. Nothing needs a
// privilege, and nothing is kept: keys live in memory.
//
//	host hq --cable-- edge hq ==UDP== relay ==UDP== edge east --cable-- host east
//	                    |  two uplinks each, every pair a path  |
package lab
