package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const lintCase = `
endpoints:
- {namespace: shop, name: web, ip: 10.1.0.10, labels: {app: web}}
- {namespace: shop, name: db, ip: 10.2.0.20, labels: {app: db}}
policies:
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: db, namespace: shop}
  spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]}
`

const simConfig = `
fabric: test
site: hq
sites:
  - name: hq
    prefixes: [10.1.0.0/16]
    uplinks: [{name: wan0, public_key: tKWQq2Ynt4m4YG6+XfBdEgqGY13FcQ/rLurvQF2VdGg=, endpoints: ["192.0.2.1:51820"], private_key_file: /k}]
  - name: east
    prefixes: [10.2.0.0/16]
    uplinks: [{name: wan0, public_key: dF8CFNgUZW3tPYsThyB+JcYMJv6PnV467uIlTbKjAUM=, endpoints: ["192.0.2.2:51820"]}]
lan: [{name: lan, kind: cable, addresses: [10.1.0.1/24]}]
endpoints:
  - {namespace: shop, name: web, site: hq, addresses: [10.1.0.10/32], labels: {app: web}}
  - {namespace: shop, name: db, site: east, addresses: [10.2.0.20/32], labels: {app: db}}
`

const simCandidate = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]}
`

const simFlows = `
{"flow_key":"tcp-10.1.0.10-40000-10.2.0.20-22","verdict":"allowed","bytes":1000,"from":{"site":"hq","namespace":"shop","name":"web","labels":{"app":"web"}},"to":{"site":"east","namespace":"shop","name":"db","labels":{"app":"db"}}}
{"flow_key":"tcp-10.1.0.10-40001-10.2.0.20-5432","verdict":"allowed","from":{"site":"hq","namespace":"shop","name":"web","labels":{"app":"web"}},"to":{"site":"east","namespace":"shop","name":"db","labels":{"app":"db"}}}
`

func files(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func invoke(args ...string) (code int, out, errs string) {
	var stdout, stderr bytes.Buffer
	code = Main(context.Background(), Env{Args: args, Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr})
	return code, stdout.String(), stderr.String()
}

func TestPolicySimulate(t *testing.T) {
	dir := files(t, map[string]string{"site.yaml": simConfig, "new.yaml": simCandidate, "flows.jsonl": simFlows})
	at := func(name string) string { return filepath.Join(dir, name) }
	args := []string{"policy", "simulate", "--config", at("site.yaml"), "-f", at("new.yaml"), "--flow", "shop/web,shop/db:22/tcp", "--matrix"}
	if code, out, errs := invoke("policy", "pack", at("flows.jsonl"), at("flows")); code != 0 || !strings.Contains(out, "2 flows") {
		t.Fatalf("pack: %d %s %s", code, out, errs)
	}
	for _, recorded := range []string{"flows.jsonl", "flows"} {
		code, out, errs := invoke(append(args, "--flows", at(recorded))...)
		if code != 0 || errs != "" {
			t.Fatalf("%s: exit %d: %s", recorded, code, errs)
		}
		for _, want := range []string{"Changes between", "shop/web", "all but TCP 5432", "isolated-no-match by NetworkPolicy/shop/db", "Replay of 2 recorded flows", "would be blocked  1", "hq -> east", "from app=web", "# everything"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", recorded, want, out)
			}
		}
	}
	code, out, errs := invoke(append(args, "--flows", at("flows"), "-o", "json")...)
	var s simulation
	if err := json.Unmarshal([]byte(out), &s); code != 0 || err != nil || s.Replay.Blocked.Flows != 1 || !s.Flows[0].Changed || len(s.Matrix) == 0 {
		t.Errorf("exit %d %s, %v: %s", code, errs, err, out)
	}
	if code, _, errs := invoke("policy", "simulate", "--config", at("site.yaml"), "--remove", "NetworkPolicy/shop/no"); code != 2 || !strings.Contains(errs, "no such policy") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

func TestPolicyLintExit(t *testing.T) {
	bad := strings.Replace(lintCase, "spec: {", "spec: {egress: [{}], ", 1)
	dir := files(t, map[string]string{"good.yaml": lintCase, "bad.yaml": bad})
	if code, out, errs := invoke("policy", "lint", "-f", filepath.Join(dir, "good.yaml")); code != 0 {
		t.Errorf("warnings only: exit %d %s%s", code, out, errs)
	}
	if code, out, _ := invoke("policy", "lint", "-f", filepath.Join(dir, "bad.yaml")); code != 1 || !strings.Contains(out, "policy-types-omit-rules") {
		t.Errorf("errors: exit %d %s", code, out)
	}
	if code, _, _ := invoke("policy", "lint", "-f", filepath.Join(dir, "bad.yaml"), "--force"); code != 0 {
		t.Errorf("forced: exit %d", code)
	}
	if code, out, _ := invoke("policy", "matrix", "-f", filepath.Join(dir, "good.yaml")); code != 0 || !strings.Contains(out, "TCP 5432") {
		t.Errorf("matrix: exit %d %s", code, out)
	}
}
