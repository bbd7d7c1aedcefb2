package control

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"patronus/appliance/ledger"
	"patronus/configs"
	"patronus/dashboard/auth"
)

const deny = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: default}
spec: {podSelector: {}, policyTypes: [Ingress]}
`

func first() *configs.Network {
	var k configs.Key
	k[0] = 9
	return &configs.Network{Fabric: "acme", Sites: []configs.NetworkSite{{Managed: true, LAN: []configs.LANPort{{Name: "lan", Kind: configs.LANCable}}, Site: configs.Site{
		Name: "hq", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}, Uplinks: []configs.Uplink{{Name: "wan0", PublicKey: k, PrivateKeyFile: "k"}},
	}}}}
}

func TestCommits(t *testing.T) {
	dir := t.TempDir()
	l, err := ledger.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	p, err := Open(t.Context(), l, first(), clock)
	if err != nil || p.Current().Revision.Number != 1 || p.Current().Config.Site != "hq" {
		t.Fatalf("%+v %v", p.Current(), err)
	}
	by := auth.Actor{User: "root"}
	add := func(spec string, dry bool) (Revision, error) {
		return p.Commit(t.Context(), by, Change{
			Action: "create_policy", Kind: "policy", ID: "default~deny", DryRun: dry,
			Edit: func(n *configs.Network) error {
				n.Policies = append(n.Policies, configs.Policy{Spec: spec})
				return nil
			},
			Show: func(n *configs.Network) any { return n.Policies },
		})
	}
	changed := p.Changed()
	for name, spec := range map[string]string{"no policy": "x", "no spec": ""} {
		if _, err := add(spec, false); err == nil {
			t.Errorf("%s is committed", name)
		}
	}
	if r, err := add(deny, true); err != nil || r.Number != 2 || p.Current().Revision.Number != 1 {
		t.Errorf("dry run: %+v %v", r, err)
	}
	select {
	case <-changed:
		t.Error("changed without a revision")
	default:
	}
	now = now.Add(time.Hour)
	if r, err := add(deny, false); err != nil || r.Number != 2 {
		t.Fatalf("%+v %v", r, err)
	}
	<-changed
	if _, err := add(deny, false); err == nil {
		t.Error("two policies of one name are committed")
	}
	if _, err := p.Commit(t.Context(), by, Change{Edit: func(*configs.Network) error { return nil }}); !errors.Is(err, ErrUnchanged) {
		t.Errorf("a change of nothing: %v", err)
	}
	// A change that fails leaves nothing behind, however far it got.
	boom := errors.New("boom")
	before := p.Current()
	_, err = p.Commit(t.Context(), by, Change{Edit: func(n *configs.Network) error {
		n.Sites[0].Prefixes[0] = netip.MustParsePrefix("10.9.0.0/16")
		n.Policies[0].Spec = "gone"
		return boom
	}})
	if !errors.Is(err, boom) || p.Current() != before || before.Network.Sites[0].Prefixes[0].String() != "10.1.0.0/16" || before.Network.Policies[0].Spec != deny {
		t.Errorf("after a failed change: %v", err)
	}
	if s, err := p.At(now.Add(-time.Minute)); err != nil || s.Revision.Number != 1 || len(s.Config.Policies) != 0 {
		t.Errorf("a minute before: %+v %v", s, err)
	}
	if _, err := p.At(now.Add(-2 * time.Hour)); !errors.Is(err, ErrNoRevision) {
		t.Errorf("before the first: %v", err)
	}
	// All of it is there after a restart, with who did it.
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = ledger.Open(dir); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if p, err = Open(t.Context(), l, first(), clock); err != nil || p.Current().Revision.Number != 2 || len(p.Revisions()) != 2 || len(p.Current().Network.Policies) != 1 {
		t.Fatalf("after a restart: %+v %v", p.Current(), err)
	}
	records, err := l.Audits(ledger.AuditFilter{Action: "create_policy"}, 0, 10)
	if err != nil || len(records) != 1 || records[0].User != "root" || string(records[0].After) == "null" {
		t.Errorf("%+v %v", records, err)
	}
	if _, err := l.VerifyAudit(); err != nil {
		t.Error(err)
	}
}
