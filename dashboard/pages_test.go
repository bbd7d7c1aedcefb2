package dashboard

import (
	"strings"
	"testing"
	"testing/fstest"

	"patronus/dashboard/web"
)

// withPages is a rig with an interface of one file and three pages.
func withPages(o *Options) {
	pages, err := web.Load(fstest.MapFS{
		"manifest.json":          {Data: []byte(`{"build":"b1","files":["app.js","run.worker.js"],"routes":[{"path":"/dashboard"},{"path":"/topology"},{"path":"/metrics"}]}`)},
		"files/app.js":           {Data: []byte("1")},
		"files/run.worker.js":    {Data: []byte("2")},
		"files/run.worker.js.br": {Data: []byte("3")},
	})
	if err != nil {
		panic(err)
	}
	o.Pages = pages
}

func TestPages(t *testing.T) {
	r := newRig(t, 2, withPages)
	page := r.want(200, "GET", "/topology", "", nil)
	if got := page.header.Get("Content-Security-Policy"); !strings.Contains(got, "require-trusted-types-for 'script'") {
		t.Errorf("a page has the policy %q", got)
	}
	part := r.want(200, "GET", "/assets/b1/app.js", "", nil)
	for name, want := range map[string]string{
		"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin",
		"Content-Type": "text/javascript; charset=utf-8", "Content-Security-Policy": "",
	} {
		if got := part.header.Get(name); got != want {
			t.Errorf("%s of a part is %q, want %q", name, got, want)
		}
	}
	worker := r.want(200, "GET", "/assets/b1/run.worker.js", "", nil, "Accept-Encoding", "br")
	if worker.header.Get("Content-Security-Policy") == "" || worker.header.Get("Content-Encoding") != "br" {
		t.Errorf("a worker has %v", worker.header)
	}
	if got := r.want(404, "GET", "/nowhere", "", nil); !strings.Contains(string(got.body), "<!doctype html>") {
		t.Errorf("an unknown page is %.80s", got.body)
	}
	r.want(304, "GET", "/assets/b1/app.js", "", nil, "If-None-Match", part.header.Get("ETag"))
}

// TestMetricsIsTwoThings: a person opens a page where Prometheus scrapes.
func TestMetricsIsTwoThings(t *testing.T) {
	r := newRig(t, 2, withPages)
	if got := r.want(200, "GET", "/metrics", "", nil, "Accept", "text/html,application/xhtml+xml"); !strings.Contains(string(got.body), "<!doctype html>") {
		t.Errorf("a browser gets %.80s", got.body)
	}
	if got := r.want(200, "GET", "/metrics", "admin", nil, "Accept", "text/plain;version=0.0.4"); !strings.Contains(string(got.body), "dashboard_") {
		t.Errorf("a scraper gets %.80s", got.body)
	}
	r.want(401, "GET", "/metrics", "", nil, "Accept", "text/plain")
}
