package alert

import (
	"errors"
	"testing"
	"time"

	"patronus/configs"
	"patronus/netstack/policy/manifest"
)

func TestSeedExamplesLoad(t *testing.T) {
	rules, err := Parse([]byte(seedRules))
	if err != nil {
		t.Fatal(err)
	}
	if len(rules) != 2 {
		t.Fatalf("%d rules", len(rules))
	}
	r := rules[0]
	if r.ID != "high-latency-hq-to-east" || r.Severity != configs.Warning || r.Hold() != 5*time.Minute || r.Condition.ThresholdMs != 50 ||
		r.Notification.Slack.Channel != "#sd-wan-alerts" || r.Notification.Email[0] != "ops@example.com" {
		t.Errorf("%+v", r)
	}
	if r = rules[1]; r.ID != "path-down" || r.Severity != configs.Critical || r.Notification.PagerDuty.ServiceKey != "abc123" {
		t.Errorf("%+v", r)
	}
}

func TestParseNamesFieldAndPlace(t *testing.T) {
	tests := []struct {
		text, field string
		line        int
	}{
		{"name: x\nseverity: loud\ncondition: {type: PathDown}\n", "severity", 2},
		{"name: x\nseverity: info\ncondition:\n  type: PathLatency\n  threshold_ms: -5\n", "condition.threshold_ms", 5},
		{"name: x\nseverity: info\ncondition:\n  type: Weather\n", "condition.type", 4},
		{"name: x\nseverity: info\ncolour: red\ncondition: {type: PathDown}\n", "colour", 3},
		{"name: x\nseverity: info\ncondition:\n  type: PathDown\n  count: 3\n", "condition.count", 5},
		{"- name: x\n  severity: info\n  condition: {type: PathDown}\n- name: y\n  severity: info\n  for: 90h\n  condition: {type: PathDown}\n", "[1].for", 6},
		{"name: x\nseverity: info\ncondition: {type: PathDown}\nnotification:\n  webhook: http://example.com\n", "notification.webhook", 5},
	}
	for _, test := range tests {
		_, err := Parse([]byte(test.text))
		var p *manifest.Problems
		if !errors.As(err, &p) || len(p.List) == 0 {
			t.Errorf("%q: %v", test.text, err)
			continue
		}
		if got := p.List[0]; got.Path != test.field || got.Line != test.line {
			t.Errorf("%q: %s at line %d, want %s at %d", test.text, got.Path, got.Line, test.field, test.line)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(seedRules)
	f.Add(`{"name":"a","severity":"info","condition":{"type":"PolicyViolation","count":3,"window":"1m"}}`)
	f.Add("- [\n")
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := Parse([]byte(text))
		if err != nil {
			return
		}
		for i := range rules {
			if err := rules[i].Validate(""); err != nil {
				t.Fatalf("what was read is not valid: %v", err)
			}
		}
	})
}
