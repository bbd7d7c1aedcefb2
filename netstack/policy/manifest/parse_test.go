package manifest

import (
	"encoding/json"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// agree checks that what we accept, the API server's reader accepts, and reads
// as the same value.
func agree(t *testing.T, text string) {
	t.Helper()
	docs, err := Parse([]byte(text), "t", 1<<20)
	if err != nil || len(docs) != 1 {
		return
	}
	// The oracle reads the first document only, be it empty.
	if hasLoneLetter(docs[0].Root()) || strings.Contains(text, "---") || strings.Contains(text, "...") {
		return
	}
	want, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		if strings.HasPrefix(strings.TrimSpace(text), "{") {
			return // JSON's own escapes
		}
		t.Fatalf("accepted %q, the oracle says %v", text, err)
	}
	got := docs[0].Root().JSON()
	var a, b any
	if err := json.Unmarshal(got, &a); err != nil {
		t.Fatalf("%q: %v in %s", text, err, got)
	}
	if err := json.Unmarshal(want, &b); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Fatalf("%q\n got %s\nwant %s", text, got, want)
	}
}

// hasLoneLetter finds the one thing that is read otherwise on purpose.
func hasLoneLetter(n Node) bool {
	switch n.Kind() {
	case Mapping:
		for k, v := range n.Pairs {
			if hasLoneLetter(k) || hasLoneLetter(v) {
				return true
			}
		}
	case Sequence:
		for e := range n.Entries {
			if hasLoneLetter(e) {
				return true
			}
		}
	default:
		switch n.Text() {
		case "y", "Y", "n", "N":
			return true
		}
	}
	return false
}

var seeds = []string{
	"a: 1\nb: [x, 'y', \"z\\n\"]\nc: {d: e, f: }\n",
	"a:\n- b: c\n  d: e\n- f\n-\n  - g\n- - h\n  - i\n",
	"a: |\n  x\n   y\n\n  z\n\nb: >-\n  x\n  y\n\n   z\n  w\nc: |+\n\n\nd: >+\n  x\n\n",
	"a: x\n  y\n\n  z # c\nb: 'x\n  y'\nc: \"x\\\n  y\"\n",
	"\"a\": yes\n'b': 0x10\n1: 010\n2.5: .5\ntrue: ~\n",
	"{\"a\": {\"b\": [1, 2.0, null, true], \"c\": \"\\u00e9\"}}",
	"# c\n---\n# d\na: b # e\n...\n",
	"a:\n  b:\n    c: 2001-01-01\n    d: 1e3\n    e: 1_000\n    f: '1'\n",
	"- a\n- b: c\n-\n- {x: [1,\n 2], y: z}\n",
	"a: http://x#y\nb: -x\nc: ?x\nd: x:y\n",
	"a: |2\n   x\n  y\n",
	"a: >\n\n  x\n\n\n  y\n",
	"text", "'text'", "a:\n", "- \n", "[]", "{}",
}

func TestAgreesWithTheAPIServersReader(t *testing.T) {
	for _, s := range seeds {
		if _, err := Parse([]byte(s), "t", 1<<20); err != nil {
			t.Errorf("%q: %v", s, err)
		}
		agree(t, s)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) < 4096 {
			agree(t, s)
		}
	})
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"a: &x 1\n", "t:1:4: anchors are refused"},
		{"a: *x\n", "t:1:4: aliases are refused"},
		{"<<: {}\n", "t:1:1: merge keys are refused"},
		{"a: !!str 1\n", "t:1:4: tags are refused"},
		{"? a\n: b\n", "t:1:1: complex keys are refused"},
		{"a: 1\nb: 2\na: 3\n", "t:3:1: duplicate field \"a\""},
		{"{a: 1, a: 2}", "t:1:8: duplicate field \"a\""},
		{"a:\n\tb: 1\n", "t:2:1: a tab may not indent"},
		{"a: b: c\n", "t:1:5: a mapping may not start here"},
		{"a: - b\n", "t:1:4: a sequence may not start"},
		{"a: [1\n", "t:1:4: '[' is not closed"},
		{"a: 'x\n", "t:1:4: a quote is not closed"},
		{"a:\n  b: 1\n c: 2\n", "t:3:2: "},
		{"é: 1\né: &a\n", "t:2:4: anchors"},
		{"a: \x00", "t:1:4: control character"},
		{"a: \xff", "t:1:4: not UTF-8"},
		{"%YAML 1.1\n---\n", "t:1:1: directives"},
		{strings.Repeat("[", 20000), "nested more than 64 deep"},
		{strings.Repeat("{a: ", 20000), "nested more than 64 deep"},
		{strings.Repeat("- ", 20000), "nested more than 64 deep"},
	} {
		_, err := Parse([]byte(c.text), "t", 1<<20)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40q: %v, want %s", c.text, err, c.want)
		}
	}
	if _, err := Parse(make([]byte, 11), "t", 10); !errors.Is(err, ErrSize) {
		t.Errorf("size: %v", err)
	}
}

// TestHostileTextIsCheap holds the parser to linear memory and time.
func TestHostileTextIsCheap(t *testing.T) {
	const size = 1 << 20
	fill := func(s string) string { return strings.Repeat(s, size/len(s)) }
	for name, text := range map[string]string{
		"entries":   "[" + fill("a,")[2:],
		"sequences": "[" + fill("[],")[3:],
		"dashes":    fill("-\n"),
		"keys":      fill("a:\n"),
		"brackets":  fill("["),
		"indents":   fill(" -"),
		"quotes":    fill("'"),
		"escapes":   "\"" + fill(`\n`)[4:],
		"blanks":    "a: |\n" + fill("\n")[8:],
		"comments":  fill("#\n"),
		"documents": fill("---\n"),
		"words":     fill("a\n"),
		"hashes":    fill("a #"),
		"colons":    fill(":"),
		"anchors":   fill("a: &a\n"),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		_, err := Parse([]byte(text), "t", size)
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		mem := (after.TotalAlloc - before.TotalAlloc) >> 20
		t.Logf("%-10s %8v %3d MB %.80v", name, took.Round(time.Microsecond), mem, err)
		if mem > 32 || took > 10*time.Second {
			t.Errorf("%s: %v, %d MB", name, took, mem)
		}
	}
}
