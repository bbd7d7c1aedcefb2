package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"time"

	"golang.org/x/net/netutil"
)

// RemotePort is the TCP port of the overlay address on which a site answers
// its dashboard.
const RemotePort = 7947

// remoteConnections bounds what dashboards hold open at one site.
const remoteConnections = 64

// RemoteOptions say who may ask an appliance from afar.
type RemoteOptions struct {
	// SiteOf says whose overlay address it is. WireGuard has authenticated it.
	SiteOf func(netip.Addr) (site string, ok bool)
	// MayAsk says whether a site has the dashboard role; MayApply whether it is
	// also the one that commits configuration. What it sends must still be
	// signed: the edge sees to that.
	MayAsk, MayApply func(site string) error
	// Asked is told of each dashboard that may ask what it asks; nil: nobody.
	Asked  func(site string)
	Logger *slog.Logger
}

// Remote offers a part of the edge's interface to dashboards on the overlay, in
// the same words, so that an [EdgeClient] asks a far site as it asks its own.
// It offers no way to the overlay or into the process: neither dial and accept
// nor profiles.
type Remote struct {
	o     RemoteOptions
	proxy *httputil.ReverseProxy
}

// NewRemote builds the far side of an edge; Run makes it listen.
func NewRemote(edge *EdgeClient, o RemoteOptions) *Remote {
	r := &Remote{o: o}
	r.proxy = &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", "edge", "edge"
		},
		Transport:     edge.http.Transport,
		FlushInterval: -1, // a capture is watched
		ErrorLog:      slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "the edge does not answer: "+err.Error(), http.StatusBadGateway)
		},
	}
	return r
}

// Run answers on l, whose connections come from overlay addresses, until ctx
// ends. It closes l.
func (r *Remote) Run(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	for _, pattern := range []string{
		"GET /v1/status", "GET /v1/running", "GET /v1/flows", "POST /v1/flows/{key}/reevaluate", "POST /v1/paths/{id}/test",
		"POST /v1/explain", "POST /v1/capture",
	} {
		mux.Handle(pattern, r.guard(r.o.MayAsk))
	}
	mux.Handle("POST /v1/apply", r.guard(r.o.MayApply))
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(r.o.Logger.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	err := server.Serve(netutil.LimitListener(l, remoteConnections))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("remote api: %w", err)
}

// errStranger is for an address that is no site's.
var errStranger = errors.New("not a site of this fabric")

func (r *Remote) guard(may func(site string) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		at, err := netip.ParseAddrPort(req.RemoteAddr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		site, ok := r.o.SiteOf(at.Addr().Unmap())
		if !ok {
			err = errStranger
		} else {
			err = may(site)
		}
		if err != nil {
			r.o.Logger.Warn("refused", "site", site, "addr", at.Addr(), "err", err)
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		if r.o.Asked != nil {
			r.o.Asked(site)
		}
		r.proxy.ServeHTTP(w, req)
	})
}
