package enroll

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patronus/appliance"
	"patronus/configs"
	"patronus/dashboard"
)

// A revision that cuts a site off from its dashboard is rolled back by the site
// itself and marked as bad; it is not tried again, and the next good one is
// taken (R20).
func TestR20RollsBackByItself(t *testing.T) {
	hq := newHeadquarters(t)
	hq.call("POST", "/api/v1/sites", branch("branch", "10.2.0.0/16", "10.2.0.1/24"), nil, 202)
	var token dashboard.EnrollmentToken
	hq.call("POST", "/api/v1/tokens/enrollment", dashboard.EnrollmentOrder{Site: "branch"}, &token, 201)
	o := options(t, token.Token)
	if _, err := appliance.Enroll(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	b := start(t, o.DataDir, "acme", "branch", netip.MustParseAddr("10.2.0.10"))
	var site dashboard.Site
	until(t, "the branch is in sync", 60*time.Second, func() bool {
		hq.call("GET", "/api/v1/sites/branch", nil, &site, 200)
		return site.InSync && site.Paths.Up > 0
	})
	before, err := b.edge.Running(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// As the dashboard would sign it: the branch takes somebody else for hq.
	key, err := configs.LoadRootKey(filepath.Join(hq.dir, "node", "controller.key"))
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := os.ReadFile(filepath.Join(hq.dir, "node", "controller.cert"))
	if err != nil {
		t.Fatal(err)
	}
	controller, err := configs.ReadController(certificate)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := configs.Decode(before.Config)
	if err != nil {
		t.Fatal(err)
	}
	for i := range cfg.Sites {
		if cfg.Sites[i].Name == "hq" {
			cfg.Sites[i].Uplinks[0].PublicKey = configs.GenerateKey().Public()
		}
	}
	rev, err := configs.NewRevision(cfg, controller.Term, before.Revision+1000, time.Now(), [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	bad, err := rev.SignDelegated(key, certificate)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err = b.edge.Apply(t.Context(), bad)
	took := time.Since(began)
	if err == nil || !strings.Contains(err.Error(), configs.ErrRejected.Error()) || took > 60*time.Second {
		t.Fatalf("after %v: %v", took, err)
	}
	t.Logf(`{"id":"R20","runs":1,"seconds":%.1f,"bar":60,"confirm_within":%.0f}`, took.Seconds(), confirmWithin.Seconds())
	after, err := b.edge.Running(t.Context())
	if err != nil || after.Revision != before.Revision || string(after.Config) != string(before.Config) || after.Rejected == nil || after.Rejected.Number != rev.Number {
		t.Errorf("revision %d is running, rejected is %+v, %v", after.Revision, after.Rejected, err)
	}
	began = time.Now()
	if err := b.edge.Apply(t.Context(), bad); err == nil || time.Since(began) > time.Second || errors.Is(err, t.Context().Err()) {
		t.Errorf("the same again: %v after %v", err, time.Since(began))
	}
	// The mark is on disk, and what was good is.
	own, joined, err := appliance.Roots(o.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	kept, _, err := configs.OpenStore(filepath.Join(o.DataDir, "edge"), "acme", "branch", own, joined)
	if err != nil || kept.Current().Number != before.Revision || kept.Rejected() == nil {
		t.Errorf("on disk: %+v %v", kept.Current(), err)
	}
}
