package house

import (
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"patronus/configs"
)

// Words that promise instead of doing. They are spelt in halves so that this
// file does not find itself.
var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b|(?i:\bnot (yet )?imple` + `mented\b)`)

// forNow is looked for in comments only: in code it may be a loop.
var forNow = regexp.MustCompile(`(?i)\bfor n` + `ow\b`)

func TestUnfinishedWords(t *testing.T) {
	for _, f := range tree(t) {
		for _, at := range f.matches(unfinished) {
			t.Errorf("%s: do it, or open an issue", at)
		}
	}
	for _, s := range sources(t) {
		for _, c := range s.ast.Comments {
			if w := forNow.FindString(c.Text()); w != "" {
				t.Errorf("%s: %q: say what holds, and why", s.line(c), w)
			}
		}
	}
}

// elsewhere matches what is true on one machine only: home and build
// directories, private package registries.
var elsewhere = regexp.MustCompile(`(?m:^|[\s"'=(:])/(home|root|work|Users)/[a-z]|GOPROXY|GONOSUMDB|GOSUMDB|_authToken|[a-z]registry *=|https?://registry\.`)

func TestNothingOfOneMachine(t *testing.T) {
	for _, f := range tree(t) {
		if f.path == "e2e/house/words_test.go" {
			continue
		}
		for _, at := range f.matches(elsewhere) {
			t.Errorf("%s belongs to one machine", at)
		}
	}
}

// logKeys are the keys of the log, so that one query finds a thing everywhere.
var logKeys = []string{"site", "uplink", "path", "peer", "flow", "policy", "rule", "rev", "term", "role", "user", "addr", "err", "dur"}

// changeKeys say from what to what something changed, and why.
var changeKeys = []string{"from", "to", "why"}

func TestLogKeys(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() || !strings.HasPrefix(s.path, "appliance/") && !strings.HasPrefix(s.path, "netstack/") && !strings.HasPrefix(s.path, "dashboard/") {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !logs(call) {
				return true
			}
			for i := 1; i < len(call.Args); i += 2 {
				lit, ok := call.Args[i].(*ast.BasicLit)
				if !ok {
					continue
				}
				key := strings.Trim(lit.Value, `"`)
				if !slices.Contains(logKeys, key) && !slices.Contains(changeKeys, key) {
					t.Errorf("%s: log key %q; use one of %v, or %v of a change", s.line(lit), key, logKeys, changeKeys)
				}
			}
			return true
		})
	}
}

// logs reports whether a call writes to a logger: x.log.Info(...), log.Warn(...).
func logs(call *ast.CallExpr) bool {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Debug", "Info", "Warn", "Error"}, f.Sel.Name) || len(call.Args) < 1 {
		return false
	}
	switch x := f.X.(type) {
	case *ast.Ident:
		return x.Name == "log" || x.Name == "logger"
	case *ast.SelectorExpr:
		return x.Sel.Name == "log" || x.Sel.Name == "Logger"
	}
	return false
}

// Every example is a configuration that check accepts.
func TestExamplesParse(t *testing.T) {
	n := 0
	for _, f := range tree(t) {
		if dir, ext := path.Dir(f.path), path.Ext(f.path); dir != "configs/examples" || ext != ".yaml" {
			continue
		}
		n++
		if _, err := configs.Parse(f.path, f.text); err != nil {
			t.Errorf("%v", err)
		}
	}
	if n < 3 {
		t.Errorf("only %d examples", n)
	}
}

// make lists every target, so that nobody reads the Makefile to find one.
func TestMakeTargets(t *testing.T) {
	var text string
	for _, f := range tree(t) {
		if f.path == "Makefile" {
			text = string(f.text)
		}
	}
	_, phony, ok := strings.Cut(text, "\n.PHONY:")
	if !ok {
		t.Fatal("Makefile without .PHONY")
	}
	phony, _, _ = strings.Cut(phony, "\n")
	target := regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):([^=].*)?$`)
	seen := 0
	for _, m := range target.FindAllStringSubmatch(text, -1) {
		seen++
		if !strings.Contains(m[2], "## ") {
			t.Errorf("Makefile: target %s has no ## line", m[1])
		}
		if !slices.Contains(strings.Fields(phony), m[1]) {
			t.Errorf("Makefile: target %s is not in .PHONY", m[1])
		}
	}
	for _, want := range []string{"help", "run", "build", "test", "test-long", "check"} {
		if !slices.Contains(strings.Fields(phony), want) {
			t.Errorf("Makefile: no target %s", want)
		}
	}
	if seen < 6 {
		t.Errorf("only %d targets found", seen)
	}
}
