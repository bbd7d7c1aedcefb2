package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// library is one npm package of which something goes to browsers.
type library struct {
	name  string
	files map[string]string // file of the package -> ours
}

// libraries are all of them. What is inside of another library's file is named
// too: its licence asks for that.
func libraries() []library {
	return []library{
		{"chart.js", map[string]string{"dist/chart.umd.min.js": "vendor/chart.js"}},
		{"@kurkle/color", nil}, // inside of chart.js
		{"d3-dispatch", map[string]string{"dist/d3-dispatch.min.js": "vendor/d3-dispatch.js"}},
		{"d3-force", map[string]string{"dist/d3-force.min.js": "vendor/d3-force.js"}},
		{"d3-quadtree", map[string]string{"dist/d3-quadtree.min.js": "vendor/d3-quadtree.js"}},
		{"d3-timer", map[string]string{"dist/d3-timer.min.js": "vendor/d3-timer.js"}},
		{"@fontsource-variable/inter", map[string]string{"files/inter-latin-wght-normal.woff2": "inter.woff2"}},
		{"lucide-static", nil}, // its icons are gathered by name
		{"tailwindcss", nil},   // its base styles are in style.css
	}
}

// allowed are the licences that we pass on.
var allowed = []string{"MIT", "ISC", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "OFL-1.1"}

// vendor takes the libraries' files and writes the notice with their licences.
func (f files) vendor(modules string) error {
	var notice strings.Builder
	notice.WriteString("The interface of Patronus has parts of the following works.\n")
	for _, l := range libraries() {
		folder := filepath.Join(modules, filepath.FromSlash(l.name))
		text, err := os.ReadFile(filepath.Join(folder, "package.json"))
		if err != nil {
			return err
		}
		var about struct{ Version, License string }
		if err := json.Unmarshal(text, &about); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		if !slices.Contains(allowed, about.License) {
			return fmt.Errorf("%s %s: its licence %q is not among %v", l.name, about.Version, about.License, allowed)
		}
		licence, err := licenceOf(folder)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		fmt.Fprintf(&notice, "\n%s\n%s %s, %s\n\n%s\n", strings.Repeat("=", 72), l.name, about.Version, about.License, strings.TrimSpace(licence))
		for from, to := range l.files {
			body, err := os.ReadFile(filepath.Join(folder, filepath.FromSlash(from)))
			if err != nil {
				return err
			}
			f[to] = withoutMap(body)
		}
	}
	f["third-party.txt"] = []byte(notice.String())
	return nil
}

func licenceOf(folder string) (string, error) {
	for _, name := range []string{"LICENSE", "LICENSE.md", "LICENSE.txt"} {
		if text, err := os.ReadFile(filepath.Join(folder, name)); err == nil {
			return string(text), nil
		}
	}
	return "", fmt.Errorf("%s has no licence text", folder)
}

// withoutMap drops the pointer to a source map, which we do not serve.
func withoutMap(text []byte) []byte {
	s := string(text)
	if i := strings.LastIndex(s, "//# sourceMappingURL="); i >= 0 {
		s = s[:i]
	}
	return []byte(s)
}
