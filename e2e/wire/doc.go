// Package wire owns a cable between two network interfaces that delays, loses,
// duplicates, reorders and throttles whole Ethernet frames, each way as a
// [vnet.Shaper] says.
//
// It is what netem would be, for kernels that do not have it: namespace tests
// put two veth pairs end to end and a Wire in the middle. It knows nothing of
// what the frames carry, except that it finishes what the kernel leaves open:
// partial checksums, and superpackets, which it cuts, so that the loss of one
// packet is the loss of one packet. Linux only; it needs CAP_NET_RAW in the
// namespaces of both interfaces.
//
//	 namespace left                 anywhere                namespace right
//	+---------------+   veth   +-------------------+   veth   +---------------+
//	| host    eth0  |==========| a   Shaper a>b  b |==========| eth0    host  |
//	|               |          |     Shaper b>a    |          |               |
//	+---------------+          +-------------------+          +---------------+
//
// The interfaces that a Wire uses must be up and should have no addresses.
// Run is a task; everything else may be called from any goroutine while it runs.
package wire
