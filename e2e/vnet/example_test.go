package vnet_test

import (
	"fmt"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"patronus/e2e/vnet"
)

// Two uplinks on one internet; the second datagram is lost by a rule.
func ExampleNetwork() {
	n := vnet.New(vnet.Options{Seed: 1})
	defer n.Close()
	inet := n.Cloud("inet")
	hq := n.Node("hq").Attach(inet, "wan0", netip.MustParseAddr("192.0.2.1"))
	east := n.Node("east").Attach(inet, "lte0", netip.MustParseAddr("198.51.100.1"))
	east.Link().Set(vnet.Impairment{Delay: time.Millisecond, Rate: 10e6})

	from, to := n.Bind(hq, 51820), n.Bind(east, 51820)
	lost := n.AddRule(hq, vnet.Rule{Direction: vnet.Outgoing, Occurrences: []int{2}})
	if _, _, err := from.Open(0); err != nil {
		fmt.Println(err)
		return
	}
	receive, _, err := to.Open(0)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range []string{"one", "two", "three"} {
		if err := from.Send([][]byte{[]byte(s)}, vnet.NewEndpoint(netip.MustParseAddrPort("198.51.100.1:51820"))); err != nil {
			fmt.Println(err)
		}
	}
	bufs, sizes, eps := [][]byte{make([]byte, 100)}, make([]int, 1), make([]conn.Endpoint, 1)
	for range 2 {
		if _, err := receive[0](bufs, sizes, eps); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s from %s\n", bufs[0][:sizes[0]], eps[0].DstToString())
	}
	fmt.Println("lost by the rule:", lost.Fired())
	// n.WriteSequence would draw it; n.WritePcap writes it for Wireshark.
	// Output:
	// one from 192.0.2.1:51820
	// three from 192.0.2.1:51820
	// lost by the rule: 1
}
