// Package vnet owns the virtual internet: links that delay, lose, duplicate,
// reorder and throttle, the clouds and NATs between them, and the hosts at the
// ends.
//
// It knows no appliance. What it offers is what an appliance already consumes:
// a conn.Bind for a tunnel ([Network.Bind]), real loopback addresses for a
// process with sockets ([Relay]), and a host behind a LAN port ([Host]). The
// same [Shaper] decides the fate of each packet in all of them, and its [Stats]
// are the truth that a test compares a measurement with.
//
//	  node hq                       cloud inet                    node east
//	+---------+  up   +------------------------------+  down  +-----------+
//	| NIC wan0|------>|  pair link    NAT (inside)   |------->| NIC lte0  |
//	|  Bind   |<------|  hq~east      10.0.0.0/8     |<-------|   Bind    |
//	+---------+ down  +------------------------------+   up   +-----------+
//	     |                          |                              |
//	   rules                 fate of a datagram                  rules
//	   (out)        sent -> lost | queue full | filtered ...      (in)
//	                           -> pcap, sequence picture
//
// Concurrency: a Network owns no goroutine. Callers and one runtime timer drive
// its event queue under one mutex, so that it works inside a testing/synctest
// bubble, where the time is virtual. Relay and Host are tasks with Run. All
// exported methods may be called from any goroutine.
package vnet
