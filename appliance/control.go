package appliance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"patronus/configs"
	"patronus/netstack"
	"patronus/netstack/capture"
)

// The edge's interface is HTTP/1.1 with JSON over a unix socket, or over any
// listener in the lab:
//
//	POST /v1/apply                 a signed revision; 204
//	POST /v1/reload                read the newest revision from disk; 204
//	GET  /v1/status                netstack.Status
//	GET  /v1/configuration         configs.Config, the running one; keys are files' names
//	GET  /v1/flows?limit=N         []netstack.FlowStatus, newest first
//	GET  /v1/telemetry             a stream of netstack.Event, one a line
//	POST /v1/flows/{key}/reevaluate  204, or 404
//	POST /v1/paths/{id}/test       netstack.PathTest
//	POST /v1/explain               netstack.Explanation
//	POST /v1/capture               netstack.CaptureOptions in, a stream of pcapng out
//	GET  /v1/dial?network=&addr=   Upgrade: the connection itself
//	GET  /v1/accept?port=          Upgrade: the next connection to our overlay port
//	GET  /debug/pprof/profile?seconds=  where the CPU's time goes, for go tool pprof
//	GET  /debug/pprof/allocs       where memory is allocated

// protocolName is what dial and accept upgrade to.
const protocolName = "patronus-splice"

// ErrEdge is what the edge answers when it refuses a request; its text says why.
var ErrEdge = errors.New("edge refused")

// EdgeClient asks an edge. It is safe for concurrent use.
type EdgeClient struct {
	dial func(ctx context.Context) (net.Conn, error)
	http *http.Client
}

// NewEdgeClient asks the edge that listens on a unix socket.
func NewEdgeClient(socket string) *EdgeClient {
	return NewEdgeClientFunc(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	})
}

// NewEdgeClientFunc asks the edge at the other end of what dial returns.
func NewEdgeClientFunc(dial func(ctx context.Context) (net.Conn, error)) *EdgeClient {
	return &EdgeClient{dial: dial, http: &http.Client{Transport: &http.Transport{
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		MaxIdleConns:    2,
		IdleConnTimeout: 30 * time.Second,
	}}}
}

// Close drops idle connections.
func (c *EdgeClient) Close() { c.http.CloseIdleConnections() }

func (c *EdgeClient) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	switch v := in.(type) {
	case nil:
	case []byte:
		body = bytes.NewReader(v)
	default:
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://edge"+path, body)
	if err != nil {
		return fmt.Errorf("ask the edge: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask the edge: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return fmt.Errorf("%w: %s", ErrEdge, bytes.TrimSpace(text))
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("the edge's answer: %w", err)
	}
	return nil
}

// Apply gives the edge a signed revision.
func (c *EdgeClient) Apply(ctx context.Context, revision []byte) error {
	return c.do(ctx, http.MethodPost, "/v1/apply", revision, nil)
}

// Reload makes the edge read the newest good revision from its files.
func (c *EdgeClient) Reload(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/v1/reload", nil, nil)
}

// Status is the edge's state.
func (c *EdgeClient) Status(ctx context.Context) (*netstack.Status, error) {
	var s netstack.Status
	return &s, c.do(ctx, http.MethodGet, "/v1/status", nil, &s)
}

// Configuration is what the edge runs. Private keys are in it by their files'
// names only.
func (c *EdgeClient) Configuration(ctx context.Context) (*configs.Config, error) {
	var text json.RawMessage
	if err := c.do(ctx, http.MethodGet, "/v1/configuration", nil, &text); err != nil {
		return nil, err
	}
	return configs.Decode(text)
}

// Flows lists the most recently active flows, at most limit.
func (c *EdgeClient) Flows(ctx context.Context, limit int) ([]netstack.FlowStatus, error) {
	var f []netstack.FlowStatus
	return f, c.do(ctx, http.MethodGet, "/v1/flows?limit="+strconv.Itoa(limit), nil, &f)
}

// Reevaluate makes the next packet of a flow be judged anew.
func (c *EdgeClient) Reevaluate(ctx context.Context, key string) error {
	return c.do(ctx, http.MethodPost, "/v1/flows/"+url.PathEscape(key)+"/reevaluate", nil, nil)
}

// TestPath probes a path at once and reports what came back.
func (c *EdgeClient) TestPath(ctx context.Context, id string) (*netstack.PathTest, error) {
	var t netstack.PathTest
	return &t, c.do(ctx, http.MethodPost, "/v1/paths/"+url.PathEscape(id)+"/test", nil, &t)
}

// Explain says what would become of a packet, and why.
func (c *EdgeClient) Explain(ctx context.Context, q netstack.Question) (*netstack.Explanation, error) {
	var x netstack.Explanation
	return &x, c.do(ctx, http.MethodPost, "/v1/explain", q, &x)
}

// Capture writes packets to w as pcapng until a cap is reached, ctx ends or the
// edge does. What became of it is told in the first two cases.
func (c *EdgeClient) Capture(ctx context.Context, o netstack.CaptureOptions, w io.Writer) (capture.Result, error) {
	var res capture.Result
	text, err := json.Marshal(o)
	if err != nil {
		return res, fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://edge/v1/capture", bytes.NewReader(text))
	if err != nil {
		return res, fmt.Errorf("ask the edge: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return res, fmt.Errorf("ask the edge: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return res, fmt.Errorf("%w: %s", ErrEdge, bytes.TrimSpace(text))
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return res, fmt.Errorf("capture: %w", err)
	}
	if err := json.Unmarshal([]byte(resp.Trailer.Get(captureTrailer)), &res); err != nil {
		return res, fmt.Errorf("capture: the edge's last words: %w", err)
	}
	return res, nil
}

// Telemetry passes the edge's events to sink until ctx ends or the edge does.
func (c *EdgeClient) Telemetry(ctx context.Context, sink func(netstack.Event)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://edge/v1/telemetry", nil)
	if err != nil {
		return fmt.Errorf("ask the edge: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask the edge: %w", err)
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var ev netstack.Event
		if err := dec.Decode(&ev); err != nil {
			return fmt.Errorf("telemetry: %w", err)
		}
		sink(ev)
	}
}

// Dial connects through the edge to an address on the overlay.
func (c *EdgeClient) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return c.upgrade(ctx, "/v1/dial?network="+url.QueryEscape(network)+"&addr="+url.QueryEscape(addr))
}

// Accept waits for the next connection to a TCP port of our overlay address.
func (c *EdgeClient) Accept(ctx context.Context, port uint16) (net.Conn, error) {
	return c.upgrade(ctx, "/v1/accept?port="+strconv.Itoa(int(port)))
}

// upgrade turns a request into a connection of its own.
func (c *EdgeClient) upgrade(ctx context.Context, path string) (net.Conn, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the edge: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://edge"+path, nil)
	if err == nil {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", protocolName)
		err = req.Write(conn)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("ask the edge: %w", err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("the edge's answer: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		resp.Body.Close()
		conn.Close()
		return nil, fmt.Errorf("%w: %s", ErrEdge, bytes.TrimSpace(text))
	}
	return &bufferedConn{Conn: conn, r: r}, nil
}

// bufferedConn is a connection of which a reader has already taken the start.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }
