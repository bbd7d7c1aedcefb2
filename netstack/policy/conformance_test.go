package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"patronus/netstack/policy/manifest"
)

// TestConformance runs testdata/conformance through the whole of
// `patronus policy verdicts`.
func TestConformance(t *testing.T) {
	files, err := filepath.Glob("testdata/conformance/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			docs, err := manifest.Parse(text, file, MaxCaseSize)
			if err != nil {
				t.Fatal(err)
			}
			var world map[string]json.RawMessage
			if err := json.Unmarshal(docs[0].Root().JSON(), &world); err != nil {
				t.Fatal(err)
			}
			for _, d := range docs[1:] {
				var c conformanceCase
				if err := json.Unmarshal(d.Root().JSON(), &c); err != nil {
					t.Fatal(err)
				}
				t.Run(c.Name, func(t *testing.T) { c.run(t, world) })
			}
		})
	}
}

type conformanceCase struct {
	Name     string           `json:"name"`
	Policies []map[string]any `json:"policies"`
	Cells    []string         `json:"cells"`
}

func (c *conformanceCase) run(t *testing.T, world map[string]json.RawMessage) {
	for _, p := range c.Policies {
		switch p["kind"] {
		case nil:
			p["kind"], p["apiVersion"] = KindNetworkPolicy, "networking.k8s.io/v1"
			if m := p["metadata"].(map[string]any); m["namespace"] == nil {
				m["namespace"] = "x"
			}
		case KindClusterNetworkPolicy:
			p["apiVersion"] = "policy.networking.k8s.io/v1alpha2"
		}
	}
	flows := make([]map[string]any, len(c.Cells))
	cells := make([][]string, len(c.Cells))
	for i, cell := range c.Cells {
		f := strings.Fields(cell)
		if len(f) < 5 {
			t.Fatalf("cell %q", cell)
		}
		port, proto, _ := strings.Cut(f[2], "/")
		n, err := strconv.Atoi(port)
		if err != nil {
			t.Fatalf("cell %q: %v", cell, err)
		}
		flows[i] = map[string]any{"from": f[0], "to": f[1], "port": n, "protocol": proto}
		cells[i] = f
	}
	in, err := json.Marshal(map[string]any{"namespaces": world["namespaces"], "endpoints": world["endpoints"], "policies": c.Policies, "flows": flows})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := RunVerdicts(in, c.Name, &out); err != nil {
		t.Fatal(err)
	}
	var got Verdicts
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Verdicts) != len(cells) {
		t.Fatalf("%d verdicts for %d cells", len(got.Verdicts), len(cells))
	}
	for i, v := range got.Verdicts {
		mark := map[bool]string{true: "+", false: "-"}
		have := []string{v.From, v.To, fmt.Sprintf("%d/%s", v.Port, v.Protocol), mark[v.Egress], mark[v.Ingress], v.Reason, v.Policy, fmt.Sprint(v.Rule)}
		for j, want := range cells[i] {
			if have[j] != want {
				t.Errorf("cell %q: %v", c.Cells[i], have)
				break
			}
		}
		if v.Allowed != (v.Egress && v.Ingress) {
			t.Errorf("cell %q: allowed %v", c.Cells[i], v.Allowed)
		}
	}
}
