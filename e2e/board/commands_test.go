package board

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"patronus/appliance/cli"
	"patronus/dashboard"
)

const webPolicy = `# who may call the web servers
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: dns}
spec:
  podSelector: {matchLabels: {app: dns}}
  policyTypes: [Ingress]
`

// TestCommands is a person's afternoon at the command line: sign in, look, try,
// apply, apply again, make a mistake, remove, sign out.
func TestCommands(t *testing.T) {
	b := start(t)
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	stdin := ""
	run := func(code int, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if got := cli.Main(t.Context(), cli.Env{Args: args, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs}); got != code {
			t.Fatalf("patronus %s: exit %d, want %d\n%s%s", strings.Join(args, " "), got, code, &out, &errs)
		}
		return out.String() + errs.String()
	}
	says := func(text string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%q is not in:\n%s", w, text)
			}
		}
	}

	says(run(2, "get", "sites"), "patronus login")
	stdin = password + "\n"
	says(run(1, "login", b.base, "-u", "admin", "--password-stdin"), "--fingerprint")
	says(run(1, "login", b.base, "-u", "admin", "--password-stdin", "--fingerprint", strings.Repeat("00", 32)), "another certificate")
	stdin = "wrong\n"
	run(1, "login", b.base, "-u", "admin", "--password-stdin", "--fingerprint", b.print)
	stdin = password + "\n"
	says(run(0, "login", b.base, "-u", "admin", "--password-stdin", "--fingerprint", b.print), "as admin (admin)")
	kept, err := filepath.Glob(filepath.Join(os.Getenv("XDG_CONFIG_HOME"), "patronus", "*"))
	if err != nil || len(kept) != 1 {
		t.Fatal(kept, err)
	}
	if info, err := os.Stat(kept[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the login can be read by others: %v %v", info.Mode(), err)
	}

	says(run(0, "whoami"), "admin", "manage_policies")
	b.until("all sites are listed as up", func() bool { return strings.Count(run(0, "get", "sites", "-f", "status=up"), "8 of 8 up") == 3 })
	var sites []dashboard.Site
	if err := json.Unmarshal([]byte(run(0, "get", "sites", "-o", "json", "--sort=-name")), &sites); err != nil || len(sites) != 3 || sites[0].Name != "west" {
		t.Errorf("%v %+v", err, sites)
	}
	says(run(0, "get", "site", "east", "-o", "yaml"), "name: east")
	for _, kind := range []string{"paths", "flows", "policies", "endpoints", "routing-policies", "events", "alerts", "alert-rules", "nodes", "revisions", "users", "tokens", "audit"} {
		run(0, "get", kind, "--limit", "2")
	}
	says(run(1, "get", "site", "nowhere"), "no site")
	says(run(1, "get", "sites", "-f", "colour=red"), "colour")

	policies := file("policies.yaml", webPolicy)
	says(run(0, "apply", "-f", policies, "--dry-run"), "policy shop~web", "would be created")
	says(run(0, "get", "policies"), "none")
	says(run(0, "apply", "-f", policies), "policy shop~web", "policy default~dns", "created")
	if got := run(0, "apply", "-f", policies); strings.Count(got, "unchanged") != 2 {
		t.Errorf("applied twice:\n%s", got)
	}
	says(run(0, "apply", "-f", policies, "--mode", "staged"), "replaced")
	says(run(0, "get", "policy", "shop~web"), "staged")
	bad := file("bad.yaml", strings.Replace(webPolicy, "podSelector", "podSelctor", 1))
	says(run(1, "apply", "-f", bad), "document 1", "line 6, column 3", "podSelctor")
	stdin = run(0, "get", "network", "-o", "yaml")
	says(run(0, "apply", "-f", "-"), "unchanged")

	says(run(2, "delete", "policy", "shop~web"), "--yes")
	says(run(0, "delete", "policy", "shop~web", "--dry-run"), "would be removed")
	says(run(0, "delete", "policy", "shop~web", "--yes"), "removed")
	says(run(1, "delete", "policy", "shop~web", "--yes"), "no policy")
	says(run(2, "delete", "node", "hq", "--yes"), "cannot be removed")

	says(run(0, "logout"), "signed out")
	says(run(2, "whoami"), "patronus login")
}
