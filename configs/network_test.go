package configs

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// example parses one of the examples.
func example(t testing.TB, name string) *Config {
	t.Helper()
	file := filepath.Join("examples", name)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(file, text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNetworkOfAStandaloneSite(t *testing.T) {
	for _, name := range []string{"standalone-two-sites.yaml", "hub-and-spoke.yaml", "voice-classes.yaml", "devices.yaml", "packet-lan-with-vlans.yaml"} {
		c := example(t, name)
		n := FromConfig(c)
		if err := n.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		back, err := n.Config(c.Site)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		// What a file may say of others beyond what a peer needs is left out.
		for i := range c.Sites {
			if c.Sites[i].Name != c.Site {
				for k := range c.Sites[i].Uplinks {
					u := &c.Sites[i].Uplinks[k]
					got := back.Sites[i].Uplinks[k]
					if got.PublicKey != u.PublicKey || got.Path() != u.Path() || !reflect.DeepEqual(got.Endpoints, u.Endpoints) {
						t.Errorf("%s: %s.%s became %+v", name, c.Sites[i].Name, u.Name, got)
					}
				}
				back.Sites[i] = c.Sites[i]
			}
		}
		if !reflect.DeepEqual(back, c) {
			t.Errorf("%s: the site's configuration changed:\n%+v\n%+v", name, back, c)
		}
		text, err := n.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		again, err := DecodeNetwork(text)
		if err != nil || !reflect.DeepEqual(again, n) {
			t.Errorf("%s: not the same after JSON: %v", name, err)
		}
	}
}

func TestNetworkAdopt(t *testing.T) {
	hq, east := example(t, "standalone-two-sites.yaml"), example(t, "standalone-two-sites-east.yaml")
	n := FromConfig(hq)
	if n.Site("east").Managed || !n.Site("hq").Managed {
		t.Fatal("a peer is managed before it was adopted")
	}
	n.Site("east").Labels = map[string]string{"region": "emea"}
	if err := n.Adopt(east); err != nil {
		t.Fatal(err)
	}
	if err := n.Validate(); err != nil {
		t.Fatal(err)
	}
	got, err := n.Config("east")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.LAN, east.LAN) || got.DataDir != east.DataDir {
		t.Errorf("east lost something: %+v", got)
	}
	for i, u := range got.Self().Uplinks {
		want := east.Self().Uplinks[i]
		if u.PrivateKeyFile != want.PrivateKeyFile || u.ListenPort != want.ListenPort || u.PublicKey != want.PublicKey {
			t.Errorf("east's uplink became %+v, want %+v", u, want)
		}
	}
	// What the network says of all wins over what the site said.
	east.Self().Prefixes = []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16")}
	if err := n.Adopt(east); err != nil || slices.Contains(n.Site("east").Prefixes, east.Self().Prefixes[0]) {
		t.Errorf("a site changed the network: %v", err)
	}
	if n.Site("east").Labels["region"] != "emea" {
		t.Error("labels were lost")
	}
	stranger := *east
	stranger.Fabric = "other"
	if err := n.Adopt(&stranger); !errors.Is(err, ErrFabric) {
		t.Errorf("a site of another fabric: %v", err)
	}
	if _, err := n.Config("nowhere"); !errors.Is(err, ErrNoSite) {
		t.Errorf("no such site: %v", err)
	}
}

func TestNetworkValidateTellsOnce(t *testing.T) {
	hq, east := example(t, "standalone-two-sites.yaml"), example(t, "standalone-two-sites-east.yaml")
	n := FromConfig(hq)
	if err := n.Adopt(east); err != nil {
		t.Fatal(err)
	}
	n.Classes = append(n.Classes, Class{Name: "bad name"})
	err := n.Validate()
	if err == nil || strings.Count(err.Error(), "bad name") != 1 {
		t.Errorf("got %v", err)
	}
	n = FromConfig(hq)
	n.Site("east").Prefixes = append(n.Site("east").Prefixes, netip.MustParsePrefix(hq.Self().Prefixes[0].String()))
	if err := n.Validate(); err == nil {
		t.Error("overlapping prefixes passed")
	}
	if err := (&Network{Fabric: "acme"}).Validate(); err == nil {
		t.Error("a network without sites passed")
	}
}

func TestNetworkCloneIsDeep(t *testing.T) {
	n := FromConfig(example(t, "standalone-two-sites.yaml"))
	before, err := n.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	c := n.Clone()
	c.Sites[0].Uplinks[0].Name = "changed"
	c.Sites[0].LAN = append(c.Sites[0].LAN[:0], LANPort{Name: "changed"})
	c.Policies = append(c.Policies, Policy{Spec: "x"})
	after, err := n.Canonical()
	if err != nil || string(after) != string(before) {
		t.Errorf("the original changed: %v", err)
	}
}

func FuzzDecodeNetwork(f *testing.F) {
	text, err := FromConfig(example(f, "standalone-two-sites.yaml")).Canonical()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"fabric":"a","sites":[{"name":"x","managed":true}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := DecodeNetwork(text)
		if err != nil {
			return
		}
		if n.Validate() != nil {
			return
		}
		out, err := n.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := DecodeNetwork(out); err != nil || !reflect.DeepEqual(again, n) {
			t.Errorf("not the same after JSON: %v", err)
		}
	})
}
