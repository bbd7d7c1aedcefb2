package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"patronus/netstack/policy/manifest"
)

const head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: x}\n"

const clusterHead = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: p}\n"

// TestRefused lists what kube-apiserver 1.37 refuses, with the place and the
// field that it names.
func TestRefused(t *testing.T) {
	spec := func(s string) string { return head + "spec:\n  podSelector: {}\n" + s }
	ingress := func(s string) string { return spec("  ingress:\n  - " + s + "\n") }
	cnp := func(s string) string {
		return clusterHead + "spec:\n  tier: Admin\n  priority: 1\n  subject: {namespaces: {}}\n" + s
	}
	egress := func(s string) string { return cnp("  egress:\n  - {action: Deny, " + s + "}\n") }
	for _, c := range []struct{ name, text, want string }{
		{"unknown field", spec("  ingres: []\n"), `p:6:3: spec: unknown field "spec.ingres"`},
		{"unknown deep field", ingress("from: [{podselector: {}}]"), `p:7:13: spec.ingress[0].from[0]: unknown field "spec.ingress[0].from[0].podselector"`},
		{"duplicate field", spec("  policyTypes: []\n  policyTypes: []\n"), `p:7:3: duplicate field "policyTypes"`},
		{"wrong type", ingress("ports: [{endPort: x}]"), "p:7:23: spec.ingress[0].ports[0].endPort: expected a whole number of 32 bits, found a string"},
		{"list for a mapping", head + "spec: []\n", "p:4:7: spec: expected a mapping, found a sequence"},
		{"boolean label", strings.Replace(spec(""), "namespace: x", "namespace: x, labels: {a: on}", 1), "metadata.labels.a: expected a string, found a boolean"},
		{"number port overflow", ingress("ports: [{port: 99999999999}]"), "spec.ingress[0].ports[0].port: not a valid value: expected a number or a string"},
		{"boolean port", ingress("ports: [{port: true}]"), "spec.ingress[0].ports[0].port: not a valid value"},
		{"no kind", "apiVersion: networking.k8s.io/v1\n", "p:1:1: kind: Required value"},
		{"no version", "kind: NetworkPolicy\n", "p:1:1: apiVersion: Required value"},
		{"other kind", "apiVersion: v1\nkind: Pod\n", `p:2:7: kind: no kind "Pod" in "v1"`},
		{"no name", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nspec: {podSelector: {}}\n", "metadata.name: Required value: name or generateName is required"},
		{"bad name", strings.Replace(spec(""), "name: p", "name: P_", 1), `p:3:18: metadata.name: Invalid value: "P_": a lowercase RFC 1123 subdomain`},
		{"bad namespace", strings.Replace(spec(""), "namespace: x", "namespace: x.y", 1), `metadata.namespace: Invalid value: "x.y": must not contain dots`},
		{"bad label key", strings.Replace(spec(""), "namespace: x", "namespace: x, labels: {-a: b}", 1), `metadata.labels: Invalid value: "-a"`},
		{"bad label value", head + "spec: {podSelector: {matchLabels: {a: b c}}}\n", `spec.podSelector.matchLabels: Invalid value: "b c"`},
		{"bad operator", head + "spec: {podSelector: {matchExpressions: [{key: a, operator: Is, values: [b]}]}}\n", `p:4:60: spec.podSelector.matchExpressions[0].operator: Invalid value: "Is": not a valid selector operator`},
		{"In without values", head + "spec: {podSelector: {matchExpressions: [{key: a, operator: In}]}}\n", "spec.podSelector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"},
		{"Exists with values", head + "spec: {podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}\n", "values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"},
		{"bad expression key", head + "spec: {podSelector: {matchExpressions: [{key: 'a b', operator: Exists}]}}\n", `matchExpressions[0].key: Invalid value: "a b"`},
		{"policy type", spec("  policyTypes: [ingress]\n"), `p:6:17: spec.policyTypes[0]: Unsupported value: "ingress"`},
		{"three policy types", spec("  policyTypes: [Ingress, Egress, Ingress]\n"), "spec.policyTypes: Invalid value: may not specify more than two policyTypes"},
		{"protocol", ingress("ports: [{protocol: ICMP}]"), `p:7:24: spec.ingress[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"`},
		{"protocol case", ingress("ports: [{protocol: tcp}]"), `Unsupported value: "tcp"`},
		{"port 0", ingress("ports: [{port: 0}]"), "p:7:20: spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"},
		{"port 65536", ingress("ports: [{port: 65536}]"), "must be between 1 and 65535"},
		{"port name", ingress("ports: [{port: '80'}]"), `spec.ingress[0].ports[0].port: Invalid value: "80": must contain at least one letter`},
		{"long port name", ingress("ports: [{port: abcdefghijklmnop}]"), "must be no more than 15 characters"},
		{"port name case", ingress("ports: [{port: HTTP}]"), "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"},
		{"endPort alone", ingress("ports: [{endPort: 80}]"), "spec.ingress[0].ports[0].endPort: Invalid value: 80: may not be specified when `port` is not specified"},
		{"endPort with a name", ingress("ports: [{port: web, endPort: 80}]"), "may not be specified when `port` is non-numeric"},
		{"endPort below", ingress("ports: [{port: 80, endPort: 79}]"), "must be greater than or equal to `port`"},
		{"endPort range", ingress("ports: [{port: 80, endPort: 65536}]"), "must be between 1 and 65535"},
		{"empty peer", ingress("from: [{}]"), "p:7:12: spec.ingress[0].from[0]: Required value: must specify a peer"},
		{"ipBlock and selector", ingress("from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]"), "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer"},
		{"no cidr", ingress("from: [{ipBlock: {except: []}}]"), "spec.ingress[0].from[0].ipBlock.cidr: Required value"},
		{"bad cidr", ingress("from: [{ipBlock: {cidr: 10.0.0.0}}]"), `p:7:29: spec.ingress[0].from[0].ipBlock.cidr: Invalid value: "10.0.0.0": must be a valid CIDR value`},
		{"host bits", ingress("from: [{ipBlock: {cidr: 10.1.2.3/16}}]"), `Invalid value: "10.1.2.3/16": must not have bits set beyond the prefix length`},
		{"leading zeros", ingress("from: [{ipBlock: {cidr: 010.0.0.0/8}}]"), "must not have leading 0s"},
		{"mapped", ingress("from: [{ipBlock: {cidr: '::ffff:10.0.0.0/104'}}]"), "must not have an IPv4-mapped IPv6 address"},
		{"except outside", ingress("from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]"), `spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "11.0.0.0/16": must be a strict subset`},
		{"except equal", ingress("from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]"), "must be a strict subset of `cidr`"},
		{"except host bits", ingress("from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.1/24]}}]"), "must not have bits set"},
		{"anchor", ingress("from: &a []"), "p:7:11: anchors are refused"},
		{"alias", ingress("from: *a"), "p:7:11: aliases are refused"},
		{"egress path", spec("  egress:\n  - to:\n    - ipBlock: {cidr: x}\n"), `p:8:23: spec.egress[0].to[0].ipBlock.cidr`},

		{"cluster: namespaced", strings.Replace(cnp(""), "name: p", "name: p, namespace: x", 1), "metadata.namespace: Forbidden: not allowed on this type"},
		{"cluster: no subject", clusterHead + "spec: {tier: Admin, priority: 1}\n", "spec.subject: Required value"},
		{"cluster: no priority", clusterHead + "spec: {tier: Admin, subject: {namespaces: {}}}\n", "spec.priority: Required value"},
		{"cluster: tier", clusterHead + "spec: {tier: admin, priority: 1, subject: {namespaces: {}}}\n", `spec.tier: Unsupported value: "admin"`},
		{"cluster: priority", clusterHead + "spec: {tier: Admin, priority: 1001, subject: {namespaces: {}}}\n", "spec.priority: Invalid value: 1001"},
		{"cluster: two subjects", clusterHead + "spec: {tier: Admin, priority: 1, subject: {namespaces: {}, pods: {podSelector: {}}}}\n", "spec.subject: Invalid value: exactly one field must be set, found 2"},
		{"cluster: nodes", egress("to: [{nodes: {}}]"), "spec.egress[0].to[0].nodes: Forbidden: there are no nodes between sites"},
		{"cluster: names", egress("to: [{domainNames: [a.example]}]"), "spec.egress[0].to[0].domainNames: Forbidden: domain names are not resolved here"},
		{"cluster: no peers", egress("to: []"), "spec.egress[0].to: Invalid value: should have at least 1 items"},
		{"cluster: peers absent", cnp("  ingress: [{action: Deny}]\n"), "spec.ingress[0].from: Required value"},
		{"cluster: action", cnp("  ingress: [{action: Allow, from: [{namespaces: {}}]}]\n"), `spec.ingress[0].action: Unsupported value: "Allow"`},
		{"cluster: network", egress("to: [{networks: [10.0.0.1/8]}]"), "spec.egress[0].to[0].networks[0]: Invalid value"},
		{"cluster: duplicate network", egress("to: [{networks: [10.0.0.0/8, 10.0.0.0/8]}]"), "networks[1]: Duplicate value"},
		{"cluster: named network port", egress("to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: web}]"), "networks have no named ports"},
		{"cluster: range", egress("to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 2, end: 2}}}}]"), "Start port must be less than End port"},
		{"cluster: empty tcp", egress("to: [{namespaces: {}}], protocols: [{tcp: {}}]"), "protocols[0].tcp.destinationPort: Required value"},
		{"cluster: many rules", cnp("  ingress:\n" + strings.Repeat("  - {action: Deny, from: [{namespaces: {}}]}\n", 26)), "spec.ingress: Too many: 26"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParsePolicy([]byte(c.text), "p")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	_, err := ParsePolicy([]byte(head+"spec:\n  podSelector: {}\n  ingress:\n  - ports: [{port: 0}, {port: 1}, {port: 70000}]\n    from: [{}]\n"), "p")
	var problems *manifest.Problems
	if !errors.As(err, &problems) || len(problems.List) != 3 {
		t.Fatalf("%v", err)
	}
}

// TestCheckPrintsWhatIsStored compares with what the API server returns.
func TestCheckPrintsWhatIsStored(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{
			head + "spec:\n  podSelector: {}\n  ingress: []\n  egress:\n  - ports:\n    - port: 80\n    - {}\n",
			"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: p\n  namespace: x\nspec:\n  egress:\n  - ports:\n    - port: 80\n      protocol: TCP\n    - protocol: TCP\n  podSelector: {}\n  policyTypes:\n  - Ingress\n  - Egress\n",
		},
		{
			"{\"apiVersion\": \"networking.k8s.io/v1\", \"kind\": \"NetworkPolicy\", \"metadata\": {\"name\": \"p\"}, \"spec\": {\"ingress\": [{}]}}",
			"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: p\n  namespace: default\nspec:\n  ingress:\n  - {}\n  podSelector: {}\n  policyTypes:\n  - Ingress\n",
		},
	} {
		var out bytes.Buffer
		if err := CheckPolicy([]byte(c.in), "p", "yaml", &out); err != nil {
			t.Fatal(err)
		}
		if out.String() != c.want {
			t.Errorf("got\n%swant\n%s", out.String(), c.want)
		}
		var again bytes.Buffer
		if err := CheckPolicy(out.Bytes(), "p", "yaml", &again); err != nil || again.String() != out.String() {
			t.Errorf("not stable: %v\n%s", err, again.String())
		}
	}
	if err := CheckPolicy([]byte("# nothing\n"), "p", "", io.Discard); !errors.Is(err, ErrNotPolicy) {
		t.Errorf("empty: %v", err)
	}
}

func TestCaseRefused(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"flow: []\n", `c:1:1: unknown field "flow"`},
		{"endpoints: [{name: a, ip: 1.2.3}]\n", "c:1:13: endpoints[0]: not an address"},
		{"endpoints: [{name: a, adress: 1.2.3}]\n", `unknown field "endpoints[0].adress"`},
		{"endpoints: [{name: a, ip: 1.2.3.4}, {name: b, ip: 1.2.3.4}]\n", "address 1.2.3.4 belongs to default/a already"},
		{"endpoints: [{name: a}, {name: a}]\n", "unique"},
		{"flows: [{from: x/a, to: 1.2.3.4}]\n", `c:1:9: flows[0]: from "x/a": neither`},
		{"flows: [{from: 1.2.3.4, to: 1.2.3.4, protocol: GRE}]\n", `unknown protocol "GRE"`},
		{"flows: [{from: 1.2.3.4, to: 1.2.3.4, port: 65536}]\n", "flows[0].port: expected a whole number of 16 bits"},
		{"policies:\n- {kind: NetworkPolicy, apiVersion: networking.k8s.io/v1, metadata: {name: p}, spec: {x: 1}}\n", `c:2:87: spec: unknown field "spec.x"`},
		{"packets: [{from: 1.2.3.4, to: 1.2.3.4, flags: SIN}]\n", `unknown TCP flag "SIN"`},
		{"[]", "expected a case"},
	} {
		var out bytes.Buffer
		err := RunVerdicts([]byte(c.text), "c", &out)
		if err == nil || !strings.Contains(err.Error(), c.want) || out.Len() > 0 {
			t.Errorf("%s: %v, want %s", c.text, err, c.want)
		}
	}
}

// TestHostileTextIsCheap holds each kind of hostile text to 32 MB, and to
// a time that only a loop without end would miss; the time is logged.
func TestHostileTextIsCheap(t *testing.T) {
	fill := func(before, unit, after string) string {
		n := (MaxPolicySize - len(before) - len(after)) / len(unit)
		return before + strings.Repeat(unit, n) + after
	}
	deep := func(open, shut string) string {
		return head + "spec: " + strings.Repeat(open, 20000) + strings.Repeat(shut, 20000) + "\n"
	}
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'j'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	var keys strings.Builder
	for i := 0; keys.Len() < MaxPolicySize*3/4; i++ {
		fmt.Fprintf(&keys, "  k%d:\n", i)
	}
	spec := head + "spec:\n  podSelector: {}\n  ingress:\n"
	for name, text := range map[string]string{
		"billion laughs":  bomb,
		"deep brackets":   deep("[", "]"),
		"deep braces":     deep("{a: ", "}"),
		"deep dashes":     head + "spec:\n  " + strings.Repeat("- ", 20000),
		"too large":       head + strings.Repeat("#", MaxPolicySize),
		"empty peers":     fill(spec+"  - from:\n", "    - {}\n", ""),
		"empty rules":     fill(spec, "  - {}\n", ""),
		"bad blocks":      fill(spec+"  - from:\n", "    - ipBlock: {cidr: x}\n", ""),
		"good blocks":     fill(spec+"  - from:\n", "    - ipBlock: {cidr: 10.0.0.0/8}\n", ""),
		"bad last":        fill(spec+"  - from:\n", "    - ipBlock: {cidr: 10.0.0.0/8}\n", "    - {}\n"),
		"bad ports":       fill(spec+"  - ports:\n", "    - port: 0\n", ""),
		"unknown fields":  head + "spec:\n" + keys.String(),
		"labels":          head + "spec:\n podSelector:\n  matchLabels:\n" + strings.ReplaceAll(keys.String(), "  k", "   k"),
		"bad labels":      head + "spec:\n podSelector:\n  matchLabels:\n" + strings.ReplaceAll(keys.String(), "  k", "   -k"),
		"annotations":     strings.Replace(head, "{name: p, namespace: x}", "\n annotations:\n"+keys.String(), 1),
		"duplicate last":  head + "spec:\n" + keys.String() + "  k0:\n",
		"owners":          fill(strings.Replace(head, "{name: p, namespace: x}", "\n  ownerReferences:\n", 1), "  - {}\n", ""),
		"expressions":     fill(head+"spec:\n  podSelector:\n    matchExpressions:\n", "    - {}\n", ""),
		"values":          fill(head+"spec:\n  podSelector:\n    matchExpressions:\n    - key: a\n      operator: In\n      values:\n", "      - -\n", ""),
		"policy types":    fill(head+"spec:\n  policyTypes:\n", "  - x\n", ""),
		"cluster rules":   fill(clusterHead+"spec:\n  ingress:\n", "  - {}\n", ""),
		"scalar document": fill("", "a ", ""),
	} {
		t.Run(name, func(t *testing.T) {
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err := ParsePolicies([]byte(text), "p")
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			mem := (after.TotalAlloc - before.TotalAlloc) >> 20
			t.Logf("%8v %3d MB %.90v", took.Round(time.Microsecond), mem, err)
			if mem > 32 && !raced || took > 10*time.Second {
				t.Errorf("%v, %d MB", took, mem)
			}
			good := name == "good blocks" || name == "empty rules" || name == "labels"
			if good != (err == nil) {
				t.Errorf("error %.200v", err)
			}
		})
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte(head + "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: web}]}]}\n"))
	f.Add([]byte(clusterHead + "spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Pass, to: [{networks: [10.0.0.0/8]}]}]}\n"))
	f.Add([]byte(`{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"p"},"spec":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		o, err := ParsePolicy(text, "f")
		if err != nil {
			return
		}
		if _, err := Compile(Input{Policies: []Policy{{Object: o}}}); err != nil {
			t.Fatalf("accepted but not compiled: %v", err)
		}
		again, err := o.YAML()
		if err != nil {
			t.Fatal(err)
		}
		p, err := ParsePolicy(again, "f")
		if err != nil || p.ID() != o.ID() {
			t.Fatalf("printed, it is not accepted: %v\n%s", err, again)
		}
	})
}

func FuzzVerdictsCase(f *testing.F) {
	files, _ := os.ReadDir("testdata/conformance")
	for _, e := range files {
		if text, err := os.ReadFile("testdata/conformance/" + e.Name()); err == nil {
			f.Add(text)
		}
	}
	f.Add([]byte("endpoints: [{name: a, ip: 10.0.0.1}]\nflows: [{from: default/a, to: 10.0.0.2, port: 80}]\npackets: [{from: default/a, to: 10.0.0.2, to_port: 80, flags: 'SYN,ACK'}]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<14 {
			return
		}
		v, err := EvaluateCases(text, "f")
		if err != nil && v.Verdicts != nil {
			t.Fatal("verdicts with an error")
		}
	})
}
