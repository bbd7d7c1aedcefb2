package netstack

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"patronus/configs"
	"patronus/netstack/path"
	"patronus/netstack/tunnel"
)

// peersOf are a rig's path peers by path id, sorted ids with them.
func (r *rig) peersOf() (ids []string, peers map[string]*tunnel.Peer) {
	peers = map[string]*tunnel.Peer{}
	for _, p := range *r.pathList.Load() {
		if p != nil {
			peers[string(p.id)] = p.peer
		}
	}
	return slices.Sorted(maps.Keys(peers)), peers
}

// An Apply that fails changes nothing and leaves nothing behind.
func TestApplyFails(t *testing.T) {
	p := newPlan("hq", "east")
	addPort := func(c *configs.Config) {
		c.LAN = append(c.LAN, configs.LANPort{Name: "lan1", Kind: configs.LANCable, Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.1.1/24")}},
			configs.LANPort{Name: "lan2", Kind: configs.LANCable, Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.2.1/24")}})
	}
	addUplinks := func(c *configs.Config) {
		for _, name := range []string{"dsl0", "sat0"} {
			u := p.uplink(name, "198.51.100.1:5182"+map[string]string{"dsl0": "5", "sat0": "6"}[name])
			u.PrivateKeyFile = "/memory/" + name
			c.Sites[0].Uplinks = append(c.Sites[0].Uplinks, u)
		}
	}
	for _, c := range []struct {
		name, fail string
		change     []func(*configs.Config)
	}{
		{"the second new port", "lan2", []func(*configs.Config){addPort}},
		{"the second new uplink", "sat0", []func(*configs.Config){addUplinks}},
		{"an uplink, after ports", "sat0", []func(*configs.Config){addPort, addUplinks}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, p, p.config(t, "hq"))
			before, st := r.snapshot.Load(), r.Status()
			_, peers := r.peersOf()
			r.opener.fail[c.fail] = true
			cfg := p.config(t, "hq", c.change...)
			if err := r.Apply(2, cfg, compile(t, cfg)); !errors.Is(err, errRefused) {
				t.Fatalf("error %v", err)
			}
			_, after := r.peersOf()
			if r.snapshot.Load() != before || !maps.Equal(peers, after) || len(r.Status().Uplinks) != len(st.Uplinks) || len(r.ports) != 1 {
				t.Error("something changed")
			}
			for name, port := range r.opener.far {
				select {
				case <-port.closed:
					if name == "lan0" {
						t.Error("the old port is closed")
					}
				default:
					if name != "lan0" {
						t.Errorf("%s stays open", name)
					}
				}
			}
			if got := r.delta(func() { r.fromLAN("lan0", datagram(host4, remote4, 1, 2, 3).build(t)) }); got.ToWAN.Forwarded != 1 {
				t.Errorf("traffic: %+v", got.ToWAN)
			}
			if got := r.delta(func() { r.fromLAN("lan0", echo(host4, "10.1.1.1", 2, 3).build(t)) }); got.ToWAN.Delivered != 0 {
				t.Error("the host has an address of the failed revision")
			}
			r.opener.fail = map[string]bool{}
			r.apply(cfg) // and now it works
		})
	}
}

// An Apply touches what it changes, and nothing else.
func TestApplyKeepsSessions(t *testing.T) {
	p := newPlan("hq", "east", "west")
	all := []string{
		"hq.lte0~east.lte0", "hq.lte0~east.wan0", "hq.lte0~west.lte0", "hq.lte0~west.wan0",
		"hq.wan0~east.lte0", "hq.wan0~east.wan0", "hq.wan0~west.lte0", "hq.wan0~west.wan0",
	}
	north := newPlan("x", "x", "x", "north").sites[3]
	for _, c := range []struct {
		name   string
		change func(*configs.Config)
		want   []string // paths that are there afterwards and have their old peer
		fresh  []string
	}{
		{"nothing", func(*configs.Config) {}, all, nil},
		{"other rules", guarded(guard, ""), all, nil},
		{"a class", func(c *configs.Config) {
			c.Classes = []configs.Class{{Name: "gold", Match: []configs.Match{{Protocol: "udp"}}}}
		}, all, nil},
		{"another LAN address", func(c *configs.Config) {
			c.LAN[0].Addresses = []netip.Prefix{netip.MustParsePrefix("10.1.9.1/24")}
		}, all, nil},
		{"an uplink here", func(c *configs.Config) {
			u := p.uplink("sat0", "198.51.100.1:51999")
			u.PrivateKeyFile = "/memory/sat0"
			c.Sites[0].Uplinks = append(c.Sites[0].Uplinks, u)
		}, all, []string{"hq.sat0~east.lte0", "hq.sat0~east.wan0", "hq.sat0~west.lte0", "hq.sat0~west.wan0"}},
		{"an uplink there", func(c *configs.Config) {
			c.Sites[1].Uplinks = append(c.Sites[1].Uplinks, p.uplink("sat0", "198.51.100.2:51999"))
		}, all, []string{"hq.lte0~east.sat0", "hq.wan0~east.sat0"}},
		{"no lte0 here", func(c *configs.Config) { c.Sites[0].Uplinks = c.Sites[0].Uplinks[:1] }, all[4:], nil},
		{
			"no lte0 there", func(c *configs.Config) { c.Sites[1].Uplinks = c.Sites[1].Uplinks[:1] },
			[]string{all[1], all[2], all[3], all[5], all[6], all[7]},
			nil,
		},
		{
			"a site more, first", func(c *configs.Config) { c.Sites = append([]configs.Site{north}, c.Sites...) }, all,
			[]string{"hq.lte0~north.lte0", "hq.lte0~north.wan0", "hq.wan0~north.lte0", "hq.wan0~north.wan0"},
		},
		{"no east", func(c *configs.Config) { c.Sites = slices.Delete(c.Sites, 1, 2) }, []string{all[2], all[3], all[6], all[7]}, nil},
		{
			"east is called ost", func(c *configs.Config) { c.Sites[1].Name = "ost" },
			[]string{all[2], all[3], all[6], all[7]},
			[]string{"hq.lte0~ost.lte0", "hq.lte0~ost.wan0", "hq.wan0~ost.lte0", "hq.wan0~ost.wan0"},
		},
		{"east's uplinks change their names", func(c *configs.Config) {
			u := c.Sites[1].Uplinks
			u[0].Name, u[1].Name = u[1].Name, u[0].Name
		}, []string{all[2], all[3], all[6], all[7]}, []string{all[0], all[1], all[4], all[5]}},
		{"another endpoint", func(c *configs.Config) {
			c.Sites[1].Uplinks[0].Endpoints = []netip.AddrPort{netip.MustParseAddrPort("203.0.113.7:9")}
		}, all, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, p, p.config(t, "hq"))
			_, before := r.peersOf()
			// A flow that has to survive, over whatever path it chose.
			out := segment(host4, "10.3.0.10", 1000, 443, "S", 0).build(t)
			r.fromLAN("lan0", out)
			r.seen()
			r.apply(p.config(t, "hq", c.change))
			got, after := r.peersOf()
			want := append(slices.Clone(c.want), c.fresh...)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("paths %q", got)
			}
			for _, id := range c.want {
				if before[id] != after[id] {
					t.Errorf("%s has a new session", id)
				}
			}
			if ids := r.snapshot.Load().steering.Load(); len(ids.site) != len(r.snapshot.Load().sites) {
				t.Errorf("steering knows %d sites", len(ids.site))
			}
			for _, id := range got {
				ps := r.byID(id)
				ends, err := path.ParseID(string(ps.id))
				if err != nil {
					t.Fatal(err)
				}
				if ps.site != ends.RemoteSite {
					t.Errorf("%s leads to %s", id, ps.site)
				}
				if e := ps.uplink.end(ps.peer); e.path != ps {
					t.Errorf("%s is not what its peer stands for", id)
				}
			}
		})
	}
}

// Addresses and routes follow the configuration.
func TestApplyAddresses(t *testing.T) {
	p := newPlan("hq", "east")
	r := newRig(t, p, p.config(t, "hq"))
	r.apply(p.config(t, "hq", func(c *configs.Config) {
		c.LAN[0].Addresses = []netip.Prefix{netip.MustParsePrefix("10.1.9.1/24")}
	}))
	for _, c := range []struct {
		dst       string
		delivered uint64
	}{{"10.1.9.1", 1}, {"10.1.0.1", 0}} {
		if got := r.delta(func() { r.fromLAN("lan0", echo("10.1.9.10", c.dst, 1, 1).build(t)) }); got.ToWAN.Delivered != c.delivered {
			t.Errorf("%s: %+v", c.dst, got.ToWAN)
		}
	}
}

// Revisions that number the sites otherwise lose no packet and mislead none.
func TestApplyUnderTraffic(t *testing.T) {
	p := newPlan("hq", "east", "west")
	r := newRig(t, p, p.config(t, "hq"))
	turned := p.config(t, "hq", func(c *configs.Config) { c.Sites[0], c.Sites[2] = c.Sites[2], c.Sites[0] })
	straight := p.config(t, "hq")
	over := r.byID("hq.wan0~east.wan0")
	packets := []spec{datagram(remote4, host4, 1, 2, 30), datagram(remote6, host6, 1, 2, 30), datagram(remote4, "10.3.0.10", 1, 2, 30)}
	var group sync.WaitGroup
	stop := make(chan struct{})
	sent := uint64(0)
	got := r.delta(func() {
		group.Go(func() { // a peer's packets come one after the other
			for {
				for _, s := range packets {
					select {
					case <-stop:
						return
					default:
						sent++
						r.overPath(over, s.build(t))
					}
				}
			}
		})
		for i := range 40 {
			r.apply([]*configs.Config{turned, straight}[i%2])
		}
		close(stop)
		group.Wait()
	})
	all := got.FromWAN.Forwarded + got.FromWAN.Dropped["queue-full"]
	if all != sent {
		t.Errorf("%d of %d: %v", all, sent, got.FromWAN.Dropped)
	}
}
