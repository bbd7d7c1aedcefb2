package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"patronus/configs"
	"patronus/netstack/flow"
	"patronus/netstack/packet"
	"patronus/netstack/policy"
)

type fataler interface {
	Helper()
	Fatal(...any)
}

// record writes flows as they were decided, in both formats.
func record(t fataler, in policy.Input, rules *policy.Ruleset, keys []packet.Key) (packed, lines []byte) {
	t.Helper()
	spaces := map[string]map[string]string{}
	for _, n := range in.Namespaces {
		spaces[n.Name] = n.Labels
	}
	party := func(e configs.HostEndpoint, ok bool) *Party {
		if !ok {
			return nil
		}
		return PartyOf(&e, spaces[e.Namespace])
	}
	var out, text bytes.Buffer
	w := NewWriter(&out)
	for i := range keys {
		k := &keys[i]
		d := rules.Evaluate(k)
		from, to := party(rules.Endpoint(k.Src.Netip())), party(rules.Endpoint(k.Dst.Netip()))
		r := Record{At: int64(i + 1), Key: *k, Rule: d.Rule, Allowed: d.Allowed, Egress: true, Ingress: true, Packets: 2, Bytes: 100}
		var err error
		if r.From, err = w.Party(from); err != nil {
			t.Fatal(err)
		}
		if r.To, err = w.Party(to); err != nil {
			t.Fatal(err)
		}
		if r.Policy, err = w.Name(rules.PolicyID(d.Policy)); err != nil {
			t.Fatal(err)
		}
		if err := w.Write(&r); err != nil {
			t.Fatal(err)
		}
		verdict := "denied"
		if d.Allowed {
			verdict = "allowed"
		}
		b, err := json.Marshal(map[string]any{
			"flow_key": flow.FormatKey(k), "at": time.Unix(0, r.At).UTC(), "verdict": verdict, "policy": rules.PolicyID(d.Policy),
			"rule": d.Rule, "packets": 2, "bytes": 100, "from": from, "to": to,
		})
		if err != nil {
			t.Fatal(err)
		}
		text.Write(append(b, '\n'))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), text.Bytes()
}

func replayed(t fataler, c *policy.Compiler, rules *policy.Ruleset, input []byte) *Report {
	t.Helper()
	report, err := Replay(context.Background(), c, rules, bytes.NewReader(input), ReplayOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestReplayRefusesDamage(t *testing.T) {
	in := bigWorld(2, 10, 2)
	packed := bigRecords(in, 100)
	c := policy.NewCompiler()
	rules, err := c.Apply(policy.Change{Input: in})
	if err != nil {
		t.Fatal(err)
	}
	for name, damaged := range map[string][]byte{
		"cut":        packed[:len(packed)-1],
		"cut header": packed[:len(packed)-100*recordSize-3],
		"flipped":    append(append([]byte{}, packed[:len(packed)-5]...), 1, 2, 3, 4, 5),
		"no object":  []byte("{}\nnonsense\n"),
		"no key":     []byte(`{"verdict":"allowed"}`),
		"no verdict": []byte(`{"flow_key":"tcp-10.0.0.1-1-10.0.0.2-2"}`),
	} {
		if _, err := Replay(context.Background(), c, rules, bytes.NewReader(damaged), ReplayOptions{}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An appliance's own output is read as it is.
func TestReplayReadsFlowStatus(t *testing.T) {
	lines := `
{"flow_key":"tcp-10.0.0.1-4000-10.0.0.2-80","status":"active","packets":3,"bytes":300,"reverse":{"Packets":2,"Bytes":200},"created_at":"2026-11-24T10:00:00Z"}
{"type":"flow","change":"started","flow":{"flow_key":"tcp-10.0.0.1-4001-10.0.0.2-80","status":"active"}}
{"type":"flow","change":"ended","flow":{"flow_key":"tcp-10.0.0.1-4001-10.0.0.2-80","status":"blocked","packets":1,"decision":{"decided_at":"2026-11-24T10:00:00Z","policy":"NetworkPolicy/a/b","rule":-1,"judged_egress":true,"from":{"namespace":"a","name":"x"},"from_labels":{"app":"web"}}}}
{"type":"path_metric","path_id":"x~y"}
`
	c := policy.NewCompiler()
	rules, err := c.Apply(policy.Change{})
	if err != nil {
		t.Fatal(err)
	}
	report := replayed(t, c, rules, []byte(lines))
	if report.Records != 2 || report.Unchanged != 1 || report.Allowed != (Counts{1, 1, 0}) {
		t.Fatalf("%+v", report)
	}
	if len(report.Policies) != 1 || report.Policies[0].Policy != "NetworkPolicy/a/b" || report.Samples[0].From != "a/x" {
		t.Fatalf("%+v", report)
	}
	if len(report.Labels) != 2 || report.Labels[0].Label != "app=web" {
		t.Fatalf("%+v", report.Labels)
	}
}

func FuzzReplay(f *testing.F) {
	in := bigWorld(2, 4, 2)
	f.Add(bigRecords(in, 3))
	f.Add([]byte(`{"flow_key":"tcp-10.0.0.1-1-10.0.0.2-2","verdict":"denied","from":{"namespace":"a","labels":{"x":"y"}}}`))
	f.Add([]byte(magic))
	c := policy.NewCompiler()
	rules, err := c.Apply(policy.Change{Input: in})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		report, err := Replay(context.Background(), c, rules, bytes.NewReader(input), ReplayOptions{Workers: 1})
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		if report.Unchanged+report.Blocked.Flows+report.Allowed.Flows != report.Records {
			t.Fatalf("%+v does not add up", report)
		}
	})
}

// What a writer writes is what a reader reads.
func FuzzRecord(f *testing.F) {
	f.Add(make([]byte, recordSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < recordSize {
			return
		}
		var r, again Record
		if !r.decode(b[:recordSize]) {
			return
		}
		out := make([]byte, recordSize)
		r.encode(out)
		if !bytes.Equal(out, b[:recordSize]) || !again.decode(out) || again != r {
			t.Fatalf("%x became %x", b[:recordSize], out)
		}
	})
}
