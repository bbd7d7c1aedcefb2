package enroll

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"patronus/appliance"
	"patronus/appliance/enroll"
	"patronus/configs"
	"patronus/dashboard"
)

// branch is what is asked for a new site.
func branch(name, prefix, port string) map[string]any {
	return map[string]any{
		"name": name, "prefixes": []string{prefix}, "uplinks": []map[string]any{{"name": "wan0"}},
		"lan": []map[string]any{{"name": "lan0", "kind": "cable", "addresses": []string{port}}},
	}
}

func options(t *testing.T, token string) appliance.EnrollOptions {
	t.Helper()
	parsed, err := enroll.Parse(token)
	if err != nil {
		t.Fatal(err)
	}
	return appliance.EnrollOptions{Token: parsed, DataDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}
}

// A new site, from nothing to traffic, with no hand on it but the one that
// carries the token.
func TestEnroll(t *testing.T) {
	hq := newHeadquarters(t)
	hq.call("POST", "/api/v1/sites", branch("branch", "10.2.0.0/16", "10.2.0.1/24"), nil, 202)
	hq.call("POST", "/api/v1/sites", branch("other", "10.3.0.0/16", "10.3.0.1/24"), nil, 202)
	// Prefixes that overlap are named, also those of sites that wait.
	hq.call("POST", "/api/v1/sites", branch("twice", "10.2.3.0/24", "10.2.3.1/24"), nil, 422)

	var token, stale, expired dashboard.EnrollmentToken
	hq.call("POST", "/api/v1/tokens/enrollment", dashboard.EnrollmentOrder{Site: "branch"}, &stale, 201)
	hq.call("POST", "/api/v1/tokens/enrollment", dashboard.EnrollmentOrder{Site: "branch"}, &token, 201)
	hq.call("POST", "/api/v1/tokens/enrollment", dashboard.EnrollmentOrder{Site: "hq"}, nil, 409)
	if !strings.Contains(token.Command, token.Token) || !strings.Contains(token.Container, "PATRONUS_TOKEN="+token.Token) || !strings.HasPrefix(token.QRSVG, "<svg") {
		t.Errorf("forms of a token: %+v", token)
	}
	progress := func() dashboard.Enrollment {
		var e dashboard.Enrollment
		hq.call("GET", "/api/v1/sites/branch/enrollment", nil, &e, 200)
		return e
	}
	if e := progress(); e.State != "created" {
		t.Errorf("%+v", e)
	}

	// The newer token of a site makes the older one worthless.
	if _, err := appliance.Enroll(t.Context(), options(t, stale.Token)); !errors.Is(err, enroll.ErrRefused) || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("a stale token: %v", err)
	}
	// A dashboard with another certificate gets nothing: not even the hash.
	impostor := options(t, token.Token)
	impostor.Token.Certificate[0] ^= 1
	if _, err := appliance.Enroll(t.Context(), impostor); !errors.Is(err, enroll.ErrImpostor) {
		t.Errorf("an impostor: %v", err)
	}
	// A token does for its own site only.
	wrong := options(t, token.Token)
	wrong.Token.Site = "other"
	if _, err := appliance.Enroll(t.Context(), wrong); !errors.Is(err, enroll.ErrRefused) || !strings.Contains(err.Error(), "another site") {
		t.Errorf("another site: %v", err)
	}
	hq.call("POST", "/api/v1/tokens/enrollment", dashboard.EnrollmentOrder{Site: "other"}, &expired, 201)
	hq.call("DELETE", "/api/v1/sites/other/enrollment", nil, nil, 204)
	if _, err := appliance.Enroll(t.Context(), options(t, expired.Token)); !errors.Is(err, enroll.ErrRefused) {
		t.Errorf("a revoked token: %v", err)
	}

	o := options(t, token.Token)
	began := time.Now()
	rev, err := appliance.Enroll(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if rev.Site != "branch" || rev.Controller == nil {
		t.Errorf("%+v", rev)
	}
	if e := progress(); e.State != "claimed" || e.Fingerprint == "" {
		t.Errorf("%+v", e)
	}
	if _, err := appliance.Enroll(t.Context(), options(t, token.Token)); !errors.Is(err, enroll.ErrRefused) || !strings.Contains(err.Error(), "used already") {
		t.Errorf("a used token: %v", err)
	}
	if _, err := appliance.Enroll(t.Context(), o); !errors.Is(err, appliance.ErrEnrolled) {
		t.Errorf("an appliance that has a site: %v", err)
	}

	b := start(t, o.DataDir, "acme", "branch", netip.MustParseAddr("10.2.0.10"))
	ping := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := b.host.Ping(ctx, netip.MustParseAddr("10.1.0.10"), 56)
		return err == nil
	}
	until(t, "the branch reaches hq's host", 60*time.Second, ping)
	t.Logf("from token to the first echo: %v", time.Since(began))
	until(t, "it is seen to carry traffic", 60*time.Second, func() bool { ping(); return progress().State == "carrying traffic" })

	// From now on it is configured like any other site.
	hq.call("POST", "/api/v1/policies", map[string]any{"spec": `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: default}
spec: {podSelector: {}, policyTypes: [Ingress]}
`}, nil, 202)
	until(t, "the branch has the policy", 60*time.Second, func() bool {
		r, err := b.edge.Running(t.Context())
		return err == nil && strings.Contains(string(r.Config), "name: web")
	})
	if _, err := configs.LoadPrivateKey(o.DataDir + "/keys/wan0.key"); err != nil {
		t.Error(err)
	}
}
