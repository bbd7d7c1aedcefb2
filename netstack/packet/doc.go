// Package packet owns what is known about a single IP packet: decoding it into
// addresses, ports, protocol, DSCP and flags, the buffer it travels in from a
// LAN port to a tunnel, the cutting of superpackets, the small rewrites of a
// router (TTL, ECN, MSS), and the packets an appliance answers with (ICMP
// errors, TCP resets).
//
// It takes no decision about a packet, keeps no state between packets, reads
// no clock and starts no goroutine. It does not reassemble: a later fragment
// is marked, and the flow package knows whose it is. It does not verify
// transport checksums on the way through; that is the receiving host's.
//
// # Concurrency and ownership
//
// Functions work on the bytes they are given, borrow them until they return
// and allocate nothing. They are safe for concurrent use on different packets.
// A Buffer has one owner at a time; a Segmenter belongs to one goroutine. An
// Info describes the bytes it was decoded from: functions that take both
// expect them to belong together, and those that change the packet keep the
// Info up to date.
//
// # A Buffer
//
// The packet lies behind Headroom free bytes, so that whoever needs a header
// before it (the overlay's outer header, an Ethernet or virtio header) writes
// it there instead of moving the packet:
//
//	mem                      Bytes                                    len(mem)
//	 |                        |                                           |
//	 v                        v                                           v
//	+----------------+-------+----+-----+-----------------------+---------+
//	| Headroom, free | outer | IP | TCP | payload               | free    |
//	+----------------+-------+----+-----+-----------------------+---------+
//	                 |<- Headroom(20), up to the packet's end ->|
//
// A superpacket is one set of headers over a payload of up to 64 KiB. It stays
// whole through decoding, flow, policy and path, and is cut at the last moment,
// while it is copied into the buffers that the tunnel encrypts:
//
//	Bytes   | IP TCP | payload 1 | payload 2 | payload 3 |   GSO.Size each
//	              |        |           |           |
//	              v        v           v           v
//	Next    outer IP TCP 1    outer IP TCP 2    outer IP TCP 3
//
// The transport checksum of a packet from a local kernel may be partial
// (GSO.NeedsCsum). The Segmenter completes it; whoever sends Bytes by another
// way calls FinishChecksum first.
package packet
