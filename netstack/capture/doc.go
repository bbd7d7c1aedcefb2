// Package capture owns what a person sees of packets: a filter, and a stream of
// the packets that it selects as pcapng (draft-ietf-opsawg-pcapng), which
// Wireshark and tcpdump read.
//
// It opens no interface: the engine offers each packet to the taps that are
// open, with what it decided, and each decision is an interface of the file.
//
//	engine (any goroutine) -- Offer: filter, copy, count what does not fit --> ring --> Tap.Run --> pcapng
//
// Offer never blocks. While no tap is open the packet path pays one atomic load
// a batch.
package capture
