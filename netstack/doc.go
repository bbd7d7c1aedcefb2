// Package netstack owns what happens to a packet between a LAN port and a
// tunnel.
//
// The whole data path is two functions: (*Engine).toWAN in outbound.go and
// (*Engine).fromWAN in inbound.go. Everything a packet meets is called from one
// of them, in file order. The packages below decide (packet, flow, policy,
// path, probe) or touch the machine (tunnel, lan); this one joins them. gVisor
// is the appliance's own host (stack.go): it terminates what is addressed to
// the appliance and never forwards.
//
//	LAN host                                                          remote site
//	   |                                                                    ^
//	   v                                                                    |
//	lan.Port.Read (batch) -- addressed to us? --> gVisor (agent, DNS)       |
//	   |                                                                    |
//	(*Engine).toWAN                                                         |
//	  1 packet.Decode          bad      -> Drop(Malformed)                  |
//	  2 flow.Table.Lookup      same version -> 5                            |
//	  3 policy.Evaluate        deny     -> Drop(Denied) | Reject            |
//	  4 routes.Lookup          none     -> Drop(NoRoute)                    |
//	  5 path.Steer             none     -> Drop(NoPath)                     |
//	  6 count, TTL, MSS, MTU   too big  -> ICMP                             |
//	  7 tunnel.Send            full     -> Drop(QueueFull)                  |
//	   |                                                                    |
//	tun.Read (segments, outer header) -> wireguard-go -> tunnel.Bind.Send --+
//
//	tunnel.Bind.Receive -> wireguard-go, outer source checked -> tun.Write
//	   |
//	(*Engine).fromWAN
//	  1 unwrap: outer source names the path; probe -> answered; ours -> gVisor
//	  2 packet.Decode          bad      -> Drop(Malformed)
//	  3 routes: source's site  other    -> Drop(Spoofed)
//	  4 flow, policy           deny     -> Drop(Denied)
//	  5 count, TTL, MSS
//	  6 lan.Port.Write (batch, GRO)
//
// Ownership. A snapshot is immutable and swapped by one atomic store; flows
// carry the version of the rules that admitted them and are judged again at
// their next packet. A pathState belongs to the prober's goroutine under its
// mutex; what the packet path needs of it is atomic. Buffers have one owner:
// see packet.Buffer; what fromWAN is given is borrowed until it returns.
package netstack
