// Package packet decodes IP packets: addresses, ports, protocol, DSCP, flags.
//
// It also owns the buffer a packet travels in from a LAN port to a tunnel, the
// cutting of superpackets, and the building of the few packets the appliance
// answers with itself (ICMP errors, TCP resets). It takes no decision about a
// packet and keeps no state.
package packet
