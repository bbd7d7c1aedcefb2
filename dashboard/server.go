package dashboard

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"

	"patronus/appliance/ledger"
	"patronus/dashboard/auth"
	"patronus/dashboard/live"
	"patronus/dashboard/web"
)

// Options are what a [Server] stands on. Directory, Ledger, Plane and States
// are needed; what else is nil answers 501.
type Options struct {
	Directory *auth.Directory
	Ledger    *ledger.Ledger
	Plane     Plane
	States    States
	Sites     Sites
	History   History
	Events    Events
	Alerts    Alerts
	Nodes     Nodes
	Captures  Captures
	// Enroller makes sites of new appliances.
	Enroller Enroller
	// OIDC signs people in by an identity provider; nil for none.
	OIDC *auth.OIDC
	// Hub is where live streams come from; default one of its own, see
	// [Server.Hub].
	Hub *live.Hub
	// Registry gets the dashboard's own metrics and is what /metrics shows;
	// default a new one.
	Registry *prometheus.Registry
	// Pages are the interface; nil for none.
	Pages *web.Pages

	// Hosts are the names that the dashboard is reached by, beside localhost and
	// IP addresses; a request for another one is refused.
	Hosts []string
	// Proxies may say in ForwardedHeader who the client is; by default nobody may.
	Proxies         []netip.Prefix
	ForwardedHeader string

	// RequestsPerMinute of one user, default 100; MessagesPerSecond to one live
	// stream, default 50.
	RequestsPerMinute int
	MessagesPerSecond int

	Version string
	Now     func() time.Time
	Log     *slog.Logger
}

// Server is the dashboard's HTTP side.
type Server struct {
	o      Options
	app    *fiber.App
	routes []Route
	log    *slog.Logger
	now    func() time.Time

	views   views
	tests   busy // paths that are being measured
	streams streamCount
	limit   *limiter
	replays *replays
	meter   *meter
	graph   *graph
	hub     *live.Hub
	hosts   map[string]bool
	spec    []byte // the OpenAPI document
}

const (
	localRequestID = "request_id"

	readTimeout  = 10 * time.Second
	writeTimeout = 60 * time.Second
	idleTimeout  = 2 * time.Minute
	// handlerTimeout bounds what a handler waits for.
	handlerTimeout = 20 * time.Second
)

// New builds a server. It fails if something that is needed is missing, or the
// table of routes has a hole.
func New(o Options) (*Server, error) {
	if o.Directory == nil || o.Ledger == nil || o.Plane == nil || o.States == nil {
		return nil, errors.New("dashboard: Directory, Ledger, Plane and States are needed")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.RequestsPerMinute <= 0 {
		o.RequestsPerMinute = 100
	}
	if o.MessagesPerSecond <= 0 {
		o.MessagesPerSecond = 50
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Hub == nil {
		o.Hub = live.NewHub()
	}
	s := &Server{
		o: o, log: o.Log, now: o.Now, hub: o.Hub, routes: table(),
		limit: newLimiter(o.RequestsPerMinute, time.Minute), replays: newReplays(), hosts: map[string]bool{"localhost": true},
	}
	if err := checkTable(s.routes); err != nil {
		return nil, fmt.Errorf("dashboard: %w", err)
	}
	for _, h := range o.Hosts {
		s.hosts[strings.ToLower(h)] = true
	}
	var err error
	if s.meter, err = newMeter(o.Registry, s); err != nil {
		return nil, fmt.Errorf("dashboard: %w", err)
	}
	if s.graph, err = newGraph(s); err != nil {
		return nil, fmt.Errorf("dashboard: %w", err)
	}
	if s.spec, err = document(s.routes, o.Version); err != nil {
		return nil, fmt.Errorf("dashboard: %w", err)
	}
	s.build()
	return s, nil
}

// build sets fiber up. Its defaults are not safe: strings that alias buffers,
// no timeouts, paths that match in any case.
func (s *Server) build() {
	config := fiber.Config{
		Immutable: true, CaseSensitive: true, StrictRouting: true,
		BodyLimit: maxBody, ReadBufferSize: maxHeader, Concurrency: 4096,
		ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		DisablePreParseMultipartForm: true, DisableStartupMessage: true,
		EnableTrustedProxyCheck: true, EnableIPValidation: true,
		ErrorHandler:   s.fail,
		RequestMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete},
	}
	if len(s.o.Proxies) > 0 {
		config.ProxyHeader = s.o.ForwardedHeader
		for _, p := range s.o.Proxies {
			config.TrustedProxies = append(config.TrustedProxies, p.Masked().String())
		}
	}
	s.app = fiber.New(config)
	s.app.Use(s.guard)
	if s.o.Pages != nil {
		s.app.Get("/metrics", s.pageOr)
	}
	for i := range s.routes {
		r := &s.routes[i]
		s.app.Add(r.Method, r.Path, s.serve(r))
		if r.Method == http.MethodGet {
			s.app.Add(http.MethodHead, r.Path, s.serve(r))
		}
	}
	if s.o.Pages != nil {
		s.app.Get("/*", s.page)
	}
}

// Hub is where live streams come from: publish to it.
func (s *Server) Hub() *live.Hub { return s.hub }

// Routes is the table, as documentation and tests read it; borrowed.
func (s *Server) Routes() []Route { return s.routes }

// Serve answers on a listener, which brings its own TLS, until ctx ends; then
// it finishes what it is at, for ten seconds at most.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() {
		s.hub.Close()
		if err := s.app.ShutdownWithTimeout(10 * time.Second); err != nil {
			s.log.Warn("dashboard did not stop in time", "err", err)
		}
	})
	defer stop()
	if err := s.app.Listener(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve the dashboard: %w", err)
	}
	return ctx.Err()
}

// guard is what every request meets first.
func (s *Server) guard(c *fiber.Ctx) (err error) {
	began := s.now()
	id := rand.Text()
	c.Locals(localRequestID, id)
	c.Set("X-Request-Id", id)
	secure(c)
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("handler panicked", "path", c.Route().Path, "why", id, "err", fmt.Sprint(p), "from", string(debug.Stack()))
			err = problem(http.StatusInternalServerError, "internal", "the error is in the log under this request's id")
		}
		if err != nil {
			err = s.fail(c, err)
		}
		s.meter.request(c, s.now().Sub(began))
	}()
	if err := s.checkFraming(c); err != nil {
		return err
	}
	return c.Next()
}

// checkFraming refuses requests that two programs could read in two ways.
func (s *Server) checkFraming(c *fiber.Ctx) error {
	h := &c.Context().Request.Header
	if len(h.Peek(fiber.HeaderTransferEncoding)) > 0 && len(h.Peek(fiber.HeaderContentLength)) > 0 {
		c.Context().SetConnectionClose()
		return problem(http.StatusBadRequest, "framing", "Content-Length and Transfer-Encoding exclude each other")
	}
	host := strings.ToLower(string(c.Context().Host()))
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err != nil && !s.hosts[name] {
		return problem(http.StatusMisdirectedRequest, "host", "this dashboard is not called by that name")
	}
	// Every id and name of ours stays as it is in a URL, so nothing needs an
	// escape, and no path has a second way to write it.
	path := string(c.Context().URI().PathOriginal())
	for i := range len(path) {
		if b := path[i]; b <= ' ' || b >= 0x7f || b == '%' || b == '\\' || b == ';' {
			return problem(http.StatusBadRequest, "path", "paths consist of letters, digits and / - . _ ~ @ :")
		}
	}
	if strings.Contains(path, "//") || strings.Contains(path, "/./") || strings.Contains(path, "/../") || strings.HasSuffix(path, "/..") || strings.HasSuffix(path, "/.") {
		return problem(http.StatusBadRequest, "path", "the path is not in its plain form")
	}
	return nil
}

// serve is the way to the handler of a route: who is it, how often, may they.
func (s *Server) serve(route *Route) fiber.Handler {
	return func(c *fiber.Ctx) error {
		ctx, cancel := context.WithTimeout(context.Background(), handlerTimeout)
		defer cancel()
		c.SetUserContext(ctx)
		r := &request{Ctx: c, route: route, now: s.now()}
		unknown := s.authenticate(r)
		if !route.Unlimited {
			if err := s.count(r); err != nil {
				return err
			}
		}
		if unknown != nil && route.Access.kind != accessPublic {
			return unknown
		}
		if err := route.Access.admits(&r.actor); err != nil {
			return err
		}
		if err := s.checkOrigin(r); err != nil {
			return err
		}
		if route.Past {
			at, err := r.time("at")
			if err != nil {
				return err
			}
			if at.After(r.now) {
				return invalid("at", "is in the future")
			}
			r.at = at
		}
		if route.Create {
			return s.once(r, func() error { return route.handle(s, r) })
		}
		return route.handle(s, r)
	}
}

// cookieName is bound to this host and to TLS by its prefix (RFC 6265bis, 4.1.3.2).
const cookieName = "__Host-patronus"

// authenticate finds out who asks. A bearer token goes before a cookie, which
// is not looked at then. The error is for routes that need somebody.
func (s *Server) authenticate(r *request) error {
	from := client(r.Ctx)
	header, cookie := r.Get(fiber.HeaderAuthorization), r.Cookies(cookieName)
	var err error
	switch {
	case header != "":
		scheme, token, ok := strings.Cut(header, " ")
		if !ok || !strings.EqualFold(scheme, "Bearer") {
			return problem(http.StatusUnauthorized, "credentials", "the Authorization header is not a bearer token")
		}
		r.actor, err = s.o.Directory.Bearer(strings.TrimSpace(token), from)
	case cookie != "":
		r.actor, err = s.o.Directory.Cookie(cookie, from)
	default:
		r.actor.Client = from
		return nil
	}
	if err != nil {
		r.actor = auth.Actor{Client: from}
		return problem(http.StatusUnauthorized, "credentials", "the session or token is not valid (any more)")
	}
	return nil
}

// count takes a request off the user's budget, or off the address's while
// nobody is signed in.
func (s *Server) count(r *request) error {
	key := "address/" + r.actor.Client.Addr
	if r.actor.Known() {
		key = "user/" + r.actor.User
	}
	left, reset, ok := s.limit.take(key, r.now)
	seconds := int((reset + time.Second - 1) / time.Second)
	r.Set("RateLimit-Limit", strconv.Itoa(s.o.RequestsPerMinute))
	r.Set("RateLimit-Remaining", strconv.Itoa(left))
	r.Set("RateLimit-Reset", strconv.Itoa(seconds))
	r.Set("RateLimit-Policy", strconv.Itoa(s.o.RequestsPerMinute)+";w=60")
	if !ok {
		p := problem(http.StatusTooManyRequests, "rate", fmt.Sprintf("more than %d requests in a minute", s.o.RequestsPerMinute))
		p.retryAfter = seconds
		return p
	}
	return nil
}

// checkOrigin is the defence against requests that a foreign page makes with a
// user's cookie. Bearer tokens are not sent by browsers on their own.
func (s *Server) checkOrigin(r *request) error {
	safe := r.Method() == http.MethodGet || r.Method() == http.MethodHead
	upgrade := strings.EqualFold(r.Get(fiber.HeaderUpgrade), "websocket")
	if safe && !upgrade || r.actor.Known() && r.actor.Kind != auth.ByCookie {
		return nil
	}
	foreign := problem(http.StatusForbidden, "origin", "the request comes from another page than the dashboard's own")
	site, origin := r.Get("Sec-Fetch-Site"), r.Get(fiber.HeaderOrigin)
	if site != "" && site != "same-origin" && site != "none" {
		return foreign
	}
	if origin != "" {
		// The host has been checked, and TLS is the only way in.
		if origin != "https://"+string(r.Context().Host()) {
			return foreign
		}
		return nil
	}
	if r.actor.Known() && (site != "same-origin" || upgrade) {
		return foreign // a browser says at least one of both
	}
	return nil
}

// secure sets the headers that hold for every answer. The policy forbids
// whatever the interface does not need: it has no inline script and no inline
// style, and no page frames it.
func secure(c *fiber.Ctx) {
	for _, h := range securityHeaders() {
		c.Set(h[0], h[1])
	}
}

func securityHeaders() [][2]string {
	return [][2]string{
		{"Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; " +
			"manifest-src 'self'; worker-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'"},
		{"Strict-Transport-Security", "max-age=31536000"},
		{"X-Content-Type-Options", "nosniff"},
		{"Referrer-Policy", "no-referrer"},
		{"Cross-Origin-Opener-Policy", "same-origin"},
		{"Cross-Origin-Resource-Policy", "same-origin"},
		{"Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"},
		{"X-Frame-Options", "DENY"},
		{"Cache-Control", "no-store"},
	}
}
