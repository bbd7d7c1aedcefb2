package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"patronus/netstack"
	"patronus/netstack/flow"
	"patronus/netstack/path"
)

// maxRevision bounds a revision that is handed to the edge, bytes.
const maxRevision = 16 << 20

// routes is the edge's interface; see control.go for its table.
func (e *Edge) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/apply", answer(func(r *http.Request) (any, error) {
		text, err := io.ReadAll(io.LimitReader(r.Body, maxRevision+1))
		if err != nil {
			return nil, err
		}
		if len(text) > maxRevision {
			return nil, fmt.Errorf("a revision has at most %d bytes", maxRevision)
		}
		return nil, e.Apply(r.Context(), text)
	}))
	mux.HandleFunc("POST /v1/reload", answer(func(*http.Request) (any, error) { return nil, e.Reload() }))
	mux.HandleFunc("GET /v1/status", answer(func(*http.Request) (any, error) { return e.engine.Status(), nil }))
	mux.HandleFunc("GET /v1/running", answer(func(*http.Request) (any, error) { return e.running() }))
	mux.HandleFunc("GET /v1/flows", answer(func(r *http.Request) (any, error) {
		limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
		if err != nil || limit <= 0 {
			return nil, fmt.Errorf("limit %q is not a positive number", r.URL.Query().Get("limit"))
		}
		return e.engine.Flows(limit), nil
	}))
	mux.HandleFunc("POST /v1/flows/{key}/reevaluate", answer(func(r *http.Request) (any, error) {
		k, err := flow.ParseKey(r.PathValue("key"))
		if err != nil {
			return nil, err
		}
		if !e.engine.Reevaluate(k) {
			return nil, errNotFound
		}
		return nil, nil
	}))
	mux.HandleFunc("POST /v1/paths/{id}/test", answer(func(r *http.Request) (any, error) {
		return e.engine.TestPath(r.Context(), path.ID(r.PathValue("id")))
	}))
	mux.HandleFunc("POST /v1/explain", answer(func(r *http.Request) (any, error) {
		var q netstack.Question
		if err := json.NewDecoder(io.LimitReader(r.Body, 64<<10)).Decode(&q); err != nil {
			return nil, fmt.Errorf("unreadable question: %w", err)
		}
		return e.engine.Explain(q)
	}))
	mux.HandleFunc("POST /v1/capture", e.capture)
	mux.HandleFunc("GET /v1/telemetry", e.stream)
	mux.HandleFunc("GET /v1/dial", e.dial)
	mux.HandleFunc("GET /v1/accept", e.accept)
	// Function names and counts only; nothing of memory's content.
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.Handle("GET /debug/pprof/allocs", pprof.Handler("allocs"))
	return mux
}

var errNotFound = errors.New("not found")

// answer makes a handler of a function: its value as JSON, or its error as
// text. This is the one place where errors become status codes.
func answer(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		switch {
		case errors.Is(err, errNotFound) || errors.Is(err, netstack.ErrUnknownPath):
			http.Error(w, err.Error(), http.StatusNotFound)
		case errors.Is(err, netstack.ErrNoConfiguration):
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadRequest)
		case v == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			w.Header().Set("Content-Type", "application/json")
			// An error means that the client went away.
			_ = json.NewEncoder(w).Encode(v)
		}
	}
}

// Headers of the edge's answers.
const (
	// bootHeader names the run of an edge: numbers of telemetry begin anew with
	// the next one.
	bootHeader = "Patronus-Boot"
	// peerHeader is who is at the other end of an accepted connection.
	peerHeader = "Patronus-Peer"
)

// numbered is an event with its number in this run of the edge.
type numbered struct {
	Seq uint64 `json:"seq"`
	netstack.Event
}

// stream sends telemetry, one JSON object a line, until the client goes: from
// the oldest kept on, or after the event that the client got last.
func (e *Edge) stream(w http.ResponseWriter, r *http.Request) {
	from := uint64(0)
	if r.URL.Query().Get("boot") == e.boot {
		if n, err := strconv.ParseUint(r.URL.Query().Get("after"), 10, 64); err == nil {
			from = n + 1
		}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set(bootHeader, e.boot)
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	_ = flush.Flush()
	e.telemetry.follow(r.Context(), from, func(first uint64, batch []netstack.Event) bool {
		for i := range batch {
			if enc.Encode(numbered{first + uint64(i), batch[i]}) != nil {
				return false
			}
		}
		return flush.Flush() == nil
	})
}

// captureTrailer carries what became of a capture, after its packets.
const captureTrailer = "Patronus-Capture"

// capture streams packets as pcapng until a cap is reached or the client goes.
func (e *Edge) capture(w http.ResponseWriter, r *http.Request) {
	var o netstack.CaptureOptions
	if err := json.NewDecoder(io.LimitReader(r.Body, 64<<10)).Decode(&o); err != nil {
		http.Error(w, "unreadable options: "+err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-pcapng")
	w.Header().Set("Trailer", captureTrailer)
	out := &flushed{w: w, flush: http.NewResponseController(w)}
	res, err := e.engine.Capture(r.Context(), o, out)
	if err != nil && !out.begun {
		w.Header().Del("Trailer")
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	text, err := json.Marshal(res)
	if err == nil {
		w.Header().Set(captureTrailer, string(text))
	}
}

// flushed sends each write at once: a person watches.
type flushed struct {
	w     io.Writer
	flush *http.ResponseController
	begun bool
}

func (f *flushed) Write(b []byte) (int, error) {
	f.begun = true
	n, err := f.w.Write(b)
	if err != nil {
		return n, err
	}
	return n, f.flush.Flush()
}

func (e *Edge) dial(w http.ResponseWriter, r *http.Request) {
	addr, err := netip.ParseAddrPort(r.URL.Query().Get("addr"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	far, err := e.engine.Dial(ctx, r.URL.Query().Get("network"), addr)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	splice(w, far, "")
}

func (e *Edge) accept(w http.ResponseWriter, r *http.Request) {
	port, err := strconv.ParseUint(r.URL.Query().Get("port"), 10, 16)
	if err != nil || port == 0 {
		http.Error(w, "port is not a number from 1 to 65535", http.StatusBadRequest)
		return
	}
	far, err := e.listeners.next(r.Context(), uint16(port), e.engine.Listen)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	splice(w, far, peerHeader+": "+far.RemoteAddr().String()+"\r\n")
}

// splice answers with an upgrade, with one more header line, and joins the two
// connections until both directions have ended.
func splice(w http.ResponseWriter, far net.Conn, header string) {
	defer far.Close()
	near, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "this connection cannot be upgraded", http.StatusInternalServerError)
		return
	}
	defer near.Close()
	if _, err := fmt.Fprintf(near, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s\r\n", protocolName, header); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { pump(far, buf) })
	pump(near, far)
	both.Wait()
}

// pump copies one direction and passes its end on.
func pump(dst io.Writer, src io.Reader) {
	// Either side may go at any time; that is how connections end.
	_, _ = io.Copy(dst, src)
	if c, ok := dst.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
		return
	}
	if c, ok := dst.(io.Closer); ok {
		_ = c.Close()
	}
}

// listeners are the overlay ports that somebody asked connections of. Each has
// one accepting goroutine, which ends when close is called.
type listeners struct {
	mu     sync.Mutex
	open   map[uint16]*acceptor
	accept sync.WaitGroup
}

type acceptor struct {
	listener net.Listener
	conns    chan net.Conn
	failed   chan struct{} // closed when no more connections will come
}

// next waits for a connection to port, which stays open between calls.
func (l *listeners) next(ctx context.Context, port uint16, listen func(uint16) (net.Listener, error)) (net.Conn, error) {
	a, err := l.acceptor(port, listen)
	if err != nil {
		return nil, err
	}
	select {
	case conn := <-a.conns:
		return conn, nil
	case <-a.failed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *listeners) acceptor(port uint16, listen func(uint16) (net.Listener, error)) (*acceptor, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.open[port]; a != nil {
		return a, nil
	}
	ln, err := listen(port)
	if err != nil {
		return nil, err
	}
	a := &acceptor{listener: ln, conns: make(chan net.Conn, 8), failed: make(chan struct{})}
	if l.open == nil {
		l.open = make(map[uint16]*acceptor)
	}
	l.open[port] = a
	l.accept.Go(a.run)
	return a, nil
}

// run accepts until the listener closes. Connections that nobody takes wait in
// a short queue; past it they are refused.
func (a *acceptor) run() {
	defer close(a.failed)
	for {
		conn, err := a.listener.Accept()
		if err != nil {
			return
		}
		select {
		case a.conns <- conn:
		default:
			conn.Close()
		}
	}
}

// close ends all listeners, and so every waiting next.
func (l *listeners) close() {
	l.mu.Lock()
	for port, a := range l.open {
		a.listener.Close()
		delete(l.open, port)
	}
	l.mu.Unlock()
	l.accept.Wait()
}
