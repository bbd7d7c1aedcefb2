package web

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"
)

func build() fstest.MapFS {
	return fstest.MapFS{
		"manifest.json": {Data: []byte(`{"build":"abc","files":["app.js","inter.woff2"],"routes":[{"path":"/dashboard","modules":["core/dom.js"]},{"path":"/policies/new","modules":[]},{"path":"/policies/:id","modules":["pages/policy.js"]}]}`)},
		"files/app.js":  {Data: []byte("plain")}, "files/app.js.gz": {Data: []byte("zip")}, "files/app.js.br": {Data: []byte("broad")},
		"files/inter.woff2": {Data: []byte("font")},
	}
}

func TestAnswer(t *testing.T) {
	p, err := Load(build())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, accepts            string
		status                   int
		encoding, cache, contain string
	}{
		{"/assets/abc/app.js", "gzip, deflate, br", 200, "br", "immutable", "broad"},
		{"/assets/abc/app.js", "gzip;q=1.0, br;q=0", 200, "gzip", "immutable", "zip"},
		{"/assets/abc/app.js", "", 200, "", "immutable", "plain"},
		{"/assets/abc/inter.woff2", "br", 200, "", "immutable", "font"},
		{"/assets/old/app.js", "br", 404, "", "no-store", "not part"},
		{"/assets/abc/../web.go", "br", 404, "", "no-store", "not part"},
		{"/", "", 200, "", "no-cache", "/assets/abc/core/dom.js"},
		{"/dashboard", "", 200, "", "no-cache", `src="/assets/abc/app.js"`},
		{"/policies/default~web.v2", "", 200, "", "no-cache", "/assets/abc/pages/policy.js"},
		{"/nowhere", "", 404, "", "no-cache", "app.js"},
	} {
		a := p.Answer(c.path, c.accepts)
		if a.Status != c.status || a.Encoding != c.encoding || !strings.Contains(a.Cache, c.cache) || !strings.Contains(string(a.Body), c.contain) {
			t.Errorf("%s (%s): %d %q %q %.300q", c.path, c.accepts, a.Status, a.Encoding, a.Cache, a.Body)
		}
	}
}

func TestShellHasNothingInline(t *testing.T) {
	p, err := Load(build())
	if err != nil {
		t.Fatal(err)
	}
	text := string(p.Answer("/dashboard", "").Body)
	for _, bad := range []string{"<style", "style=", "<script>", " on", "http:", "https:"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page has %q, which the policy forbids", bad)
		}
	}
}

func TestNotBuilt(t *testing.T) {
	if _, err := Load(fstest.MapFS{"README": {}}); !errors.Is(err, ErrNotBuilt) {
		t.Errorf("got %v", err)
	}
}

// TestBuild checks what make web has made, if it has.
func TestBuild(t *testing.T) {
	p, err := Open()
	if errors.Is(err, ErrNotBuilt) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]bool{}
	for _, f := range p.Manifest().Files {
		files[f] = true
	}
	for _, want := range []string{"app.js", "theme.js", "style.css", "inter.woff2", "vendor/icons.js", "icon.svg", "third-party.txt", "handbook/index.md", "topology/layout.worker.js"} {
		if !files[want] {
			t.Errorf("%s is missing", want)
		}
	}
	for _, r := range p.Manifest().Routes {
		for _, m := range r.Modules {
			if !files[m] {
				t.Errorf("page %s needs %s, which is missing", r.Path, m)
			}
		}
	}
	notice := string(p.Answer(Prefix+p.Manifest().Build+"/third-party.txt", "").Body)
	for _, name := range []string{"chart.js", "@kurkle/color", "d3-force", "inter", "lucide", "tailwindcss"} {
		if !strings.Contains(notice, name) {
			t.Errorf("the notice does not name %s", name)
		}
	}
}
