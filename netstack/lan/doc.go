// Package lan owns the ports through which a site's own hosts reach the
// appliance: a kernel TUN device, a raw socket on an Ethernet interface (with
// or without a VLAN), and a cable in memory.
//
// It does not judge, route, fragment or answer packets: it turns what the
// kernel hands over into IP packets with GSO metadata, and IP packets into what
// the kernel takes, merging runs of segments into superpackets on the way. What
// a port cannot pass on is dropped and counted by reason.
//
// Read belongs to one goroutine per port and hands over owned buffers. Write
// may be called by several goroutines at once and only borrows. Close may be
// called at any time, unblocks Read, and is idempotent.
//
//	            kernel / wire                                 engine
//
//	TUN     vnet_hdr | IP packet ----- drain ----+
//	                                             v
//	Packet  vnet_hdr | eth | IP  --- classify -> header checked -> GSO -> Read
//	                          |
//	                          +- ARP, NDP, multicast -> Control (gVisor)
//	                                                       |
//	        frames <---------------------- WriteFrame <----+
//
//	TUN     writev   <-- vnet_hdr | headers | payload | payload ... <-- runs <-- Write
//	Packet  sendmmsg <-- vnet_hdr | eth | headers | payload ... <-- neighbour <-- runs
//	                                                                  |
//	                                             unknown: wait (bounded), Resolver
package lan
