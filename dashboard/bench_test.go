package dashboard

import (
	"net/http"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// direct asks a server without a network.
func direct(b *testing.B, r *rig, target string, headers ...string) {
	b.Helper()
	handler := r.server.app.Handler()
	ctx := &fasthttp.RequestCtx{}
	ctx.Request.Header.SetMethod(http.MethodGet)
	ctx.Request.SetRequestURI(target)
	ctx.Request.Header.SetHost("localhost")
	ctx.Request.Header.Set("Authorization", "Bearer "+r.tokens["viewer"])
	for i := 0; i < len(headers); i += 2 {
		ctx.Request.Header.Set(headers[i], headers[i+1])
	}
	b.ReportAllocs()
	for b.Loop() {
		ctx.Response.Reset()
		handler(ctx)
		if s := ctx.Response.StatusCode(); s != http.StatusOK {
			b.Fatalf("%d %s", s, ctx.Response.Body())
		}
	}
	b.ReportMetric(float64(len(ctx.Response.Body())), "body-bytes")
}

func BenchmarkListSites1000(b *testing.B) {
	r := newRig(b, 1000)
	b.Run("whole", func(b *testing.B) { direct(b, r, "/api/v1/sites") })
	b.Run("whole-gzip", func(b *testing.B) { direct(b, r, "/api/v1/sites", "Accept-Encoding", "gzip") })
	b.Run("filtered", func(b *testing.B) { direct(b, r, "/api/v1/sites?label.region=eu&sort=-active_flows&limit=50") })
	b.Run("one", func(b *testing.B) { direct(b, r, "/api/v1/sites/branch0500") })
	b.Run("summary", func(b *testing.B) { direct(b, r, "/api/v1/metrics/summary") })
}

// What a new state of the sites costs, once for everybody.
func BenchmarkView1000(b *testing.B) {
	r := newRig(b, 1000)
	committed := r.plane.Current()
	rules, err := ruledOf(committed.Config, 1)
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		v := newView(committed, r.world.states, rules, nil, now)
		v.sites.whole()
		v.paths.whole()
	}
}

func BenchmarkCommit1000(b *testing.B) {
	r := newRig(b, 1000)
	n := r.plane.Current().Network
	began := time.Now()
	if err := n.Validate(); err != nil {
		b.Fatal(err)
	}
	b.Logf("validation of the one managed site: %v", time.Since(began))
	for i := 0; b.Loop(); i++ {
		a := r.do("PUT", "/api/v1/policies/shop~web", "operator", PolicyBody{Spec: webPolicy, Mode: "disabled", Answer: []string{"drop", "reject"}[i%2]})
		if a.status != 202 && a.status != 200 {
			b.Fatalf("%d %s", a.status, a.body)
		}
	}
}
