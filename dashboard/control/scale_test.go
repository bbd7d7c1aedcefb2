package control

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"patronus/appliance/ledger"
	"patronus/configs"
	"patronus/dashboard/auth"
)

// thousand is a hub-and-spoke fabric of n sites, of which the first are managed.
func thousand(n int) *configs.Network {
	net := &configs.Network{Fabric: "acme", Topology: configs.Topology{Mode: configs.HubAndSpoke, Hubs: []string{"hq"}}}
	for i := range n {
		name := fmt.Sprintf("site%d", i)
		if i == 0 {
			name = "hq"
		}
		var k configs.Key
		k[0], k[1], k[2] = byte(i), byte(i>>8), 9
		net.Sites = append(net.Sites, configs.NetworkSite{Managed: i < 20, Site: configs.Site{
			Name: name, Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i)}), 24)},
			Uplinks: []configs.Uplink{{
				Name: "wan0", PublicKey: k, PrivateKeyFile: "/k",
				Endpoints: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 51820)},
			}},
		}})
	}
	return net
}

// One site's change in a fabric of a thousand: the time of a commit.
func TestCommitAtThousandSites(t *testing.T) {
	t.Setenv("TMPDIR", memory(t))
	took := map[int]time.Duration{}
	for _, n := range []int{250, 1000} {
		l, err := ledger.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		p, err := Open(t.Context(), l, thousand(n), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		best := time.Hour
		for i := range 4 {
			began := time.Now()
			_, err := p.Commit(t.Context(), auth.Actor{User: "alice"}, Change{Action: "update_site", Kind: "site", ID: "site7", Edit: func(n *configs.Network) error {
				n.Site("site7").Labels = map[string]string{"n": fmt.Sprint(i)}
				return nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			best = min(best, time.Since(began))
		}
		took[n] = best
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	line, err := json.Marshal(map[string]any{"id": "commit", "sites": 1000, "ms": took[1000].Milliseconds(), "ms_250": took[250].Milliseconds(), "bar_ms": 1000})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", line)
	if took[1000] > time.Second {
		t.Errorf("a commit takes %v", took[1000])
	}
}

// thin is a site without a disk: it verifies what it is given and runs it.
type thin struct {
	mu      sync.Mutex
	root    ed25519.PublicKey
	running *configs.Config
}

func (s *thin) Configuration(context.Context) (*configs.Config, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running, nil
}

func (s *thin) Apply(_ context.Context, signed []byte) error {
	r, err := configs.Verify(signed, s.root)
	if err != nil {
		return err
	}
	c, err := r.Config()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = c
	return nil
}

// A revision that every site sees, and one that a few see, given to a thousand
// sites that answer at once: the dashboard's own work, and that of the sites,
// which each decode and check a configuration of a thousand sites here.
func TestDistributeToThousandSites(t *testing.T) {
	if os.Getenv("PATRONUS_LONG") == "" {
		t.Skip("PATRONUS_LONG is not set")
	}
	t.Setenv("TMPDIR", memory(t))
	l, err := ledger.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	net := thousand(1000)
	for i := range net.Sites {
		net.Sites[i].Managed = true
	}
	p, err := Open(t.Context(), l, net, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	signer := &pen{root: configs.GenerateRootKey(), key: configs.GenerateRootKey(), term: 2}
	sites := map[string]*thin{}
	for i := range net.Sites {
		c, err := net.Config(net.Sites[i].Name)
		if err != nil {
			t.Fatal(err)
		}
		sites[net.Sites[i].Name] = &thin{root: signer.root.Public(), running: c}
	}
	d := NewDistributor(DistributorOptions{Plane: p, Ledger: l, Signer: signer, Self: "hq", Reach: func(s string) Site { return sites[s] }})
	d.round(t.Context(), true)
	began := time.Now()
	rev, err := p.Commit(t.Context(), auth.Actor{User: "alice"}, Change{Action: "create_namespace", Kind: "namespace", ID: "x", System: true, Edit: func(n *configs.Network) error {
		n.Namespaces = append(n.Namespaces, configs.Namespace{Name: "x"})
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	d.hurry()
	d.round(t.Context(), false)
	took := time.Since(began)
	done := 0
	for name, x := range d.Progress() {
		if x.Revision >= rev.Number {
			done++
		} else if done < 3 {
			t.Logf("%s: %+v", name, x)
		}
	}
	t.Logf(`{"id":"distribute","sites":%d,"seconds":%.2f,"bar":10}`, done, took.Seconds())
	if done != 1000 {
		t.Errorf("%d sites have it", done)
	}
}
