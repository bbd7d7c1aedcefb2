package configs

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "rewrite the wanted messages in testdata/bad")

// mustParse reads a file that has to be good.
func mustParse(t testing.TB, file string) *Config {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(file, text)
	if err != nil {
		t.Fatalf("a good file is refused:\n%v", err)
	}
	return c
}

// Each file of testdata/bad ends in comments that say what has to be reported,
// in order and in full: "# want 12:5: path: message".
func TestParseRefuses(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			body, want, _ := strings.Cut(string(text), "# want ")
			var wanted []string
			if want != "" {
				wanted = strings.Split(strings.TrimSpace(want), "\n# want ")
			}
			c, err := Parse("f", []byte(body))
			if c != nil || err == nil {
				t.Fatalf("accepted (config %v, error %v)", c != nil, err)
			}
			var got []string
			for _, e := range FieldErrors(err) {
				got = append(got, strings.TrimSpace(strings.TrimPrefix(e.Error(), "f:")))
			}
			if *update {
				lines := body + "# want " + strings.Join(got, "\n# want ") + "\n"
				if err := os.WriteFile(file, []byte(lines), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(wanted, got); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFieldErrorText(t *testing.T) {
	for _, tc := range []struct {
		e    FieldError
		want string
	}{
		{FieldError{File: "a.yaml", Line: 12, Column: 5, Path: "sites[1].mtu", Value: "500", Why: "is too small"}, "a.yaml:12:5: sites[1].mtu: 500 is too small"},
		{FieldError{File: "a.yaml", Line: 12, Why: "not YAML"}, "a.yaml:12: not YAML"},
		{FieldError{File: "a.yaml", Why: "the file is empty"}, "a.yaml: the file is empty"},
		{FieldError{Path: "site", Why: "is missing"}, "site: is missing"},
	} {
		if got := tc.e.Error(); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.e, got, tc.want)
		}
	}
	one := &FieldError{Path: "x"}
	wrapped := fmt.Errorf("reload: %w", Problems{one})
	if list := FieldErrors(wrapped); len(list) != 1 || list[0] != one {
		t.Errorf("FieldErrors lost the problem: %v", list)
	}
	var e *FieldError
	if !errors.As(wrapped, &e) || e != one {
		t.Error("errors.As does not find the problem")
	}
	if FieldErrors(errors.New("other")) != nil {
		t.Error("FieldErrors of another error")
	}
}

func TestParseReportsAtMostSoMany(t *testing.T) {
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, "key%d: 1\n", i)
	}
	_, err := Parse("f", []byte(b.String()))
	list := FieldErrors(err)
	if len(list) != maxProblems+1 || !strings.Contains(list[maxProblems].Why, "more") {
		t.Errorf("%d problems, last %v", len(list), list[len(list)-1])
	}
}

// hostile are texts made to cost far more than they weigh.
func hostile() map[string]string {
	const n = maxText
	fill := func(s string) string { return strings.Repeat(s, n/len(s)) }
	keys := func() string {
		var b strings.Builder
		for i := 0; b.Len() < n-16; i++ {
			fmt.Fprintf(&b, "k%d: 1\n", i)
		}
		return b.String()
	}
	bomb := func() string {
		var b strings.Builder
		b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x]\n")
		for i := range 9 {
			fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 9), ","))
		}
		return b.String()
	}
	return map[string]string{
		"20,000 brackets":   strings.Repeat("[", 20_000),
		"brackets":          fill("["),
		"braces":            fill("{"),
		"braces with keys":  fill("{a: "),
		"balanced brackets": strings.Repeat("[", n/2) + strings.Repeat("]", n/2),
		"indentation": func() string {
			var b strings.Builder
			for i := 0; b.Len() < n-2000; i++ {
				b.WriteString(strings.Repeat(" ", i) + "a:\n")
			}
			return b.String()
		}(),
		"dashes":        fill("- "),
		"questions":     fill("? "),
		"question rows": fill("?\n"),
		"colons":        fill(": "),
		"tags":          fill("!a "),
		"anchors":       "a: " + fill("&a ")[:n-8],
		"aliases":       fill("- *a\n"),
		"alias bomb":    bomb(),
		"entries":       fill("- 1\n"),
		"commas":        "[" + fill("1,")[:n-2] + "]",
		"keys":          keys(),
		"one key":       fill("a: 1\n"),
		"long scalar":   "fabric: " + strings.Repeat("x", n-16),
		"long key":      strings.Repeat("x", n-16) + ": 1",
		"open quote":    "a: \"" + fill("x\n")[:n-8],
		"escapes":       "a: \"" + fill(`\n`)[:n-8] + "\"",
		"comments":      fill("#\n"),
		"documents":     fill("---\n"),
		"directives":    fill("%a\n"),
		"unknown list":  "fabric: [" + strings.Repeat("x,", maxMarks-8) + "]",
		"many sites":    "sites: [" + strings.Repeat("{},", maxMarks/2-8) + "]",
		"many names":    "sites: [" + strings.Repeat("{name: a},", maxMarks/3-8) + "]",
		"blank lines":   fill("\n"),
		"too long":      strings.Repeat("x", n+1),
		"bytes":         fill("\xff\xfe"),
		"zeros":         fill("\x00"),
		"carriage":      fill("\r"),
	}
}

func TestParseHostile(t *testing.T) {
	limit := 100 * time.Millisecond
	if raceEnabled {
		limit *= 20 // the race detector's own cost, not ours
	}
	for name, text := range hostile() {
		t.Run(name, func(t *testing.T) {
			runtime.LockOSThread() // Parse stays on one thread, whose processor time is read
			defer runtime.UnlockOSThread()
			best := time.Duration(1<<63 - 1)
			var spent uint64
			for range 5 { // the machine is shared: the fastest run tells the cost
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				start := threadTime(t)
				c, err := Parse("f", []byte(text))
				best = min(best, threadTime(t)-start)
				runtime.ReadMemStats(&after)
				spent = after.TotalAlloc - before.TotalAlloc
				if err == nil || c != nil {
					t.Fatal("accepted")
				}
				if len(err.Error()) > 64<<10 {
					t.Fatalf("a message of %d bytes", len(err.Error()))
				}
				if best < limit {
					break
				}
			}
			t.Logf("%v, %d MB", best, spent>>20)
			if best > limit {
				t.Errorf("took %v", best)
			}
			if !raceEnabled && spent > 32<<20 {
				t.Errorf("allocated %d MB", spent>>20)
			}
		})
	}
}

// threadTime is the processor time that the calling thread has used.
func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestReferenceAndExamplesParse(t *testing.T) {
	files, err := filepath.Glob("examples/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatal("examples are missing", err)
	}
	for _, file := range append(files, "reference.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) { mustParse(t, file) })
	}
	if c, err := Parse("reference", []byte(Reference())); err != nil || c.Fabric != "acme" {
		t.Errorf("the embedded reference: %v", err)
	}
	a, b := mustParse(t, "examples/standalone-two-sites.yaml"), mustParse(t, "examples/standalone-two-sites-east.yaml")
	if len(a.Peers()) != 1 || a.Peers()[0].Name != b.Site || b.Peers()[0].Name != a.Site {
		t.Error("the two files do not make one fabric")
	}
}

// Every key that a file can set is in the reference, with a value.
func TestReferenceIsComplete(t *testing.T) {
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(Reference()), &root); err != nil {
		t.Fatal(err)
	}
	have := make(map[string]bool)
	keysOf(root.Content[0], "", have)
	for _, key := range keysOfType(reflect.TypeFor[Config](), "") {
		if !have[key] {
			t.Errorf("reference.yaml does not have %s", key)
		}
	}
}

func keysOf(n *yaml.Node, path string, out map[string]bool) {
	for i, child := range n.Content {
		switch {
		case n.Kind == yaml.SequenceNode:
			keysOf(child, path, out)
		case i%2 == 1:
			key := path + "." + n.Content[i-1].Value
			out[key] = child.Value != "" || len(child.Content) > 0
			keysOf(child, key, out)
		}
	}
}

func keysOfType(typ reflect.Type, path string) []string {
	for typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct || typ.Implements(textMarshaler) {
		return nil
	}
	var keys []string
	for i := range typ.NumField() {
		if key := keyOf(typ.Field(i)); key != "" {
			keys = append(append(keys, path+"."+key), keysOfType(typ.Field(i).Type, path+"."+key)...)
		}
	}
	return keys
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("examples/*.yaml")
	bad, _ := filepath.Glob("testdata/bad/*.yaml")
	for _, file := range append(append(files, bad...), "reference.yaml") {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, text := range hostile() {
		f.Add([]byte(text[:min(len(text), 512)]))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("f", text)
		if err != nil {
			if c != nil {
				t.Fatal("a configuration beside an error")
			}
			if len(FieldErrors(err)) == 0 {
				t.Fatalf("an error without a place: %v", err)
			}
			return
		}
		body, err := c.Canonical()
		if err != nil {
			t.Fatalf("accepted, but cannot be encoded: %v", err)
		}
		back, err := Decode(body)
		if err != nil {
			t.Fatalf("accepted, but its encoding is refused: %v", err)
		}
		if !reflect.DeepEqual(c, back) {
			t.Fatalf("changed by a trip through JSON:\n%s", cmp.Diff(c, back, comparers))
		}
	})
}
