package configs

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestGuardRails(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(c *Config)
		want   string
	}{
		"nothing":            {func(*Config) {}, ""},
		"a policy":           {func(c *Config) { c.Policies = append(c.Policies, Policy{Spec: "x"}) }, ""},
		"a prefix elsewhere": {func(c *Config) { add(c, "east", "192.0.2.0/24") }, ""},
		"the lan port's network": {func(c *Config) {
			c.Self().Prefixes = nil
			add(c, "east", "10.1.0.0/16")
		}, "site east claims 10.1.0.0/16, where lan port"},
		"a part of it":    {func(c *Config) { add(c, "east", "10.1.0.128/25") }, "site east claims 10.1.0.128/25"},
		"default route":   {func(c *Config) { add(c, "east", "0.0.0.0/0") }, "site east claims the default route 0.0.0.0/0"},
		"default route 6": {func(c *Config) { add(c, "east", "::/0") }, "site east claims the default route ::/0"},
		"no uplink":       {func(c *Config) { c.Self().Uplinks = nil }, "no uplink"},
		"not in it":       {func(c *Config) { c.Sites = slices.DeleteFunc(c.Sites, func(s Site) bool { return s.Name == "hq" }) }, "no uplink"},
		"no peer":         {func(c *Config) { c.Sites = slices.DeleteFunc(c.Sites, func(s Site) bool { return s.Name != "hq" }) }, "no peer"},
	} {
		running := guarded(t)
		next := guarded(t)
		tc.change(next)
		err := GuardRails(running, next)
		if tc.want == "" && err != nil || tc.want != "" && (!errors.Is(err, ErrGuardRail) || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	// What the site has now, it may keep.
	running := guarded(t)
	add(running, "east", "0.0.0.0/0")
	if err := GuardRails(running, running); err != nil {
		t.Errorf("a default route that was there: %v", err)
	}
}

func guarded(t *testing.T) *Config {
	t.Helper()
	c, err := New(Config{
		Fabric: "acme", Site: "hq",
		Sites: []Site{
			{
				Name: "hq", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
				Uplinks: []Uplink{{Name: "a", PublicKey: Key{0: 9}, PrivateKeyFile: "/a"}},
			},
			{
				Name: "east", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")},
				Uplinks: []Uplink{{Name: "a", PublicKey: Key{0: 10}, Endpoints: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.7:51820")}}},
			},
		},
		LAN: []LANPort{{Name: "lan0", Kind: LANCable, Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24")}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func add(c *Config, site, prefix string) {
	s := c.SiteByName(site)
	s.Prefixes = append(s.Prefixes, netip.MustParsePrefix(prefix))
}

func TestRootAsText(t *testing.T) {
	root := GenerateRootKey().Public()
	back, err := ParseRoot(FormatRoot(root))
	if err != nil || !back.Equal(root) {
		t.Errorf("%v came back as %v, %v", root, back, err)
	}
	for _, text := range []string{"", "x", FormatRoot(root)[1:], FormatRoot(root) + "A", "!" + FormatRoot(root)[1:]} {
		if _, err := ParseRoot(text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
	if f := Fingerprint(root); len(f) != 19 || f == Fingerprint(GenerateRootKey().Public()) {
		t.Errorf("fingerprint %q", f)
	}
}
