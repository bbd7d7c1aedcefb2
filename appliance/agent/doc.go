// Package agent owns the API that an appliance offers on the overlay, to the
// dashboards of its fabric: [Server] at the appliance, [Client] at the
// dashboard. agent.proto is its contract.
//
// It does not decide what is pulled when (dashboard/collect), who is a
// dashboard (the appliance's record of terms, asked through [Options.Allow]),
// nor how records are kept (appliance/store).
//
//	dashboard                                             appliance
//	  Client -- HTTP/2 in the tunnel, TCP port 7946 --> Server -- Source
//	     Identify, Exchange   every site of the fabric       |
//	     Records, Tail        sites with the role only       |
//	                                                         |
//	     who is calling: the overlay address that the connection comes from,
//	     which WireGuard has authenticated; nothing that a message says
//
// Back-pressure is HTTP/2's flow control: a dashboard that does not read stops
// the appliance from reading its store on. One stream holds at most a chunk of
// records at either end, so memory is bounded by the number of streams.
//
// A Server and a Client are safe for concurrent use.
package agent
