// Package namespace owns the tests of the built binary on real interfaces: two
// or three gateways, each a `patronus run` process in a network namespace of its
// own, with veth uplinks to a router in the middle, kernel hosts on their LANs,
// and a [patronus/e2e/wire.Wire] on an uplink where a test wants delay or loss.
//
// It holds no product code and no simulation: what can be shown without root is
// tested in e2e/vnet. The tests need root, /dev/net/tun and the tools that
// e2e/setup installs, and say so when they are left out. They take the binary
// from PATRONUS_BIN (default: bin/patronus of this tree); PATRONUS_LONG=1 adds
// the distributions and the soak, PATRONUS_BENCH=1 the throughput table.
//
//	host a      gateway a             core (router)            gateway b     host b
//	+------+   +---------+  wan0   +---------------+  wan0   +---------+   +------+
//	| eth0 |===| lan0    |=========| a-wan0 b-wan0 |=========|    lan0 |===| eth0 |
//	|      |   |         |  lte0   |               |  lte0   |         |   |      |
//	+------+   | patronus|=========| a-lte0 b-lte0 |=========| patronus|   +------+
//	           +---------+         +---------------+         +---------+
//
// Site number i has 10.i.0.0/16 and fd00:0:i::/48; its uplink j is
// 198.18.(10i+j).2 and 2001:db8:(10i+j)::2. Tests run one after the other: they
// measure time, and the machine may be small. Nothing sleeps to synchronise:
// conditions are polled with a deadline.
package namespace
