package policy

import (
	"fmt"
	"strings"
	"testing"
)

// TestPackets passes packets through flow state: b accepts TCP 80 from a only,
// a accepts nothing.
func TestPackets(t *testing.T) {
	const world = `
endpoints:
- {namespace: x, name: a, ip: 10.0.0.1, labels: {pod: a}}
- {namespace: x, name: b, ip: 10.0.0.2, labels: {pod: b}}
policies:
- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: x}, spec: {podSelector: {matchLabels: {pod: a}}}}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: b, namespace: x}
  spec: {podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}], ports: [{port: 80}, {port: 53, protocol: UDP}]}]}
packets:
`
	const there, back = "{from: x/a, from_port: 1000, to: x/b, to_port: 80, flags: '%s'}", "{from: x/b, from_port: 80, to: x/a, to_port: 1000, flags: '%s'}"
	type step struct {
		packet  string
		allowed bool
	}
	flags := func(format, f string) string { return fmt.Sprintf(format, f) }
	for name, steps := range map[string][]step{
		"a reply passes":              {{flags(there, "SYN"), true}, {flags(back, "SYN,ACK"), true}, {flags(there, "ACK"), true}, {flags(back, "PSH,ACK"), true}},
		"an answer without a flow":    {{flags(back, "SYN,ACK"), false}, {flags(back, "ACK"), false}},
		"state lost, opener goes on":  {{flags(there, "ACK"), true}, {flags(back, "ACK"), true}},
		"a denied SYN opens nothing":  {{flags(back, "SYN"), false}, {flags(there, "SYN,ACK"), true}, {flags(back, "ACK"), true}},
		"after a reset":               {{flags(there, "SYN"), true}, {flags(back, "RST,ACK"), true}, {flags(back, "ACK"), false}, {flags(there, "SYN"), true}},
		"after both ends":             {{flags(there, "SYN"), true}, {flags(there, "FIN,ACK"), true}, {flags(back, "FIN,ACK"), true}, {flags(there, "ACK"), true}, {flags(back, "SYN"), false}},
		"another port is another one": {{flags(there, "SYN"), true}, {"{from: x/b, from_port: 80, to: x/a, to_port: 1001, flags: ACK}", false}},
		"UDP": {
			{"{from: x/a, from_port: 5, to: x/b, to_port: 53, protocol: UDP}", true},
			{"{from: x/b, from_port: 53, to: x/a, to_port: 5, protocol: UDP}", true},
			{"{from: x/b, from_port: 53, to: x/a, to_port: 6, protocol: UDP}", false},
		},
		"ICMP follows rules without ports": {{"{from: x/a, to: x/b, protocol: ICMP, from_port: 7}", false}},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			b.WriteString(world)
			for _, s := range steps {
				b.WriteString("- " + s.packet + "\n")
			}
			v, err := EvaluateCases([]byte(b.String()), "c")
			if err != nil {
				t.Fatal(err)
			}
			for i, s := range steps {
				if v.Packets[i].Allowed != s.allowed {
					t.Errorf("packet %d %s: %+v", i, s.packet, v.Packets[i])
				}
			}
		})
	}
}
