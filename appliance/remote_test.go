package appliance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// TestRemoteMatrix asks every route of the edge's interface, and some tricks,
// as every kind of caller.
func TestRemoteMatrix(t *testing.T) {
	// What stands for the edge echoes what reached it.
	edge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", r.Method, r.RequestURI, body)
	}))
	defer edge.Close()
	client := NewEdgeClientFunc(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", edge.Listener.Addr().String())
	})
	defer client.Close()
	no := errors.New("no such role")
	var heard sync.Map
	callers := map[string]string{"127.0.0.1": "holder", "127.0.0.2": "standby", "127.0.0.3": "branch"}
	remote := NewRemote(client, RemoteOptions{
		SiteOf: func(a netip.Addr) (string, bool) { s, ok := callers[a.String()]; return s, ok },
		MayAsk: func(site string) error {
			if site == "branch" {
				return no
			}
			return nil
		},
		MayApply: func(site string) error {
			if site != "holder" {
				return no
			}
			return nil
		},
		Asked:  func(site string) { heard.Store(site, true) },
		Logger: slog.New(slog.DiscardHandler),
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- remote.Run(ctx, l) }()

	const ask, apply, none = "holder standby", "holder", ""
	for _, tc := range []struct{ method, path, may string }{
		{"GET", "/v1/status", ask},
		{"GET", "/v1/running", ask},
		{"GET", "/v1/flows?limit=3", ask},
		{"POST", "/v1/flows/tcp%2F10.1.0.5%2F1/reevaluate", ask},
		{"POST", "/v1/paths/hq.wan0~east.wan0/test", ask},
		{"POST", "/v1/explain", ask},
		{"POST", "/v1/capture", ask},
		{"POST", "/v1/apply", apply},
		{"GET", "/v1/apply", none},
		{"PUT", "/v1/apply", none},
		{"POST", "/v1/reload", none},
		{"GET", "/v1/dial?network=tcp&addr=10.0.0.1:22", none},
		{"GET", "/v1/accept?port=22", none},
		{"GET", "/v1/telemetry", none},
		{"GET", "/debug/pprof/profile", none},
		{"GET", "/debug/pprof/allocs", none},
		{"GET", "/v1/%64ial", none},
		{"GET", "//v1/dial", none},
		{"GET", "/v1/status/../dial", none},
		{"POST", "/v1/paths/..%2F..%2Freload/x", none},
		{"GET", "/", none},
	} {
		for from, site := range callers {
			asked(t, l.Addr().String(), from, tc.method, tc.path, strings.Contains(tc.may, site))
		}
		asked(t, l.Addr().String(), "127.0.0.4", tc.method, tc.path, false)
	}
	for site, want := range map[string]bool{"holder": true, "standby": true, "branch": false} {
		if _, ok := heard.Load(site); ok != want {
			t.Errorf("%s was heard: %v", site, ok)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// asked sends one request from an address, and checks whether it reached the
// edge, as it was.
func asked(t *testing.T, to, from, method, path string, want bool) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		return d.DialContext(ctx, network, to)
	}}
	defer transport.CloseIdleConnections()
	c := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://edge"+path, strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	// Nothing that a caller says of itself counts.
	req.Header.Set("X-Forwarded-For", "127.0.0.1")
	req.Header.Set("Forwarded", "for=127.0.0.1")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.StatusCode == http.StatusOK; got != want {
		t.Errorf("%s %s from %s: %s %s", method, path, from, resp.Status, text)
	}
	if want && string(text) != method+" "+path+" hello" {
		t.Errorf("%s %s reached the edge as %s", method, path, text)
	}
}
