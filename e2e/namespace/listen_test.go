package namespace

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"patronus/appliance"
)

// listeners are the sockets that strangers can send to in a namespace: protocol
// and local address, in order (ss(8)).
func listeners(t *testing.T, n netns) []string {
	t.Helper()
	var out []string
	for line := range strings.Lines(sh(t, "ip", "netns", "exec", string(n), "ss", "-H", "-lntuw")) {
		f := strings.Fields(line)
		if len(f) < 5 {
			t.Fatalf("ss says %q", line)
		}
		out = append(out, f[0]+" "+f[4])
	}
	slices.Sort(out)
	return out
}

// TestS05Listeners: an appliance listens to WireGuard on its uplinks and to
// nothing else; as a dashboard, also to HTTPS; and not any more afterwards.
func TestS05Listeners(t *testing.T) {
	w := newWorld(t, plan{uplinks: []string{"wan0", "wan1"}})
	a, b := w.site("a"), w.site("b")
	tunnels := func(s *site) (all []string) {
		for _, u := range s.uplinks {
			// Bound to the interface and to the address of the plan's family.
			all = append(all, fmt.Sprintf("udp %s%%%s:51820", u.addr(4), u.name))
		}
		slices.Sort(all)
		return all
	}
	want := func(s *site, when string, more ...string) {
		t.Helper()
		all := append(tunnels(s), more...)
		slices.Sort(all)
		eventually(t, 30*time.Second, s.name+" "+when, func() error {
			if have := listeners(t, s.gateway); !slices.Equal(have, all) {
				return fmt.Errorf("listens on %q, want %q", have, all)
			}
			return nil
		})
	}
	want(a, "without a role")
	eventually(t, 20*time.Second, "a keeps history", func() error {
		st, err := appliance.NewNodeClient(appliance.NodeSocket(a.dataDir())).Status(t.Context())
		if err != nil || !st.History.Open {
			return fmt.Errorf("%+v, %v", st, err)
		}
		return nil
	})
	sh(t, program(), "promote", "--data-dir", a.dataDir())
	want(a, "as dashboard", "tcp *:8443")
	want(b, "beside a dashboard")
	sh(t, program(), "demote", "--data-dir", a.dataDir())
	want(a, "without a role again")
}
