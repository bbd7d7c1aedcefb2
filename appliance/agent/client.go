package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
)

// Errors of calls; errors.Is finds them in what a [Client] returns.
var (
	// ErrRefused: the site does not know us as a dashboard.
	ErrRefused = errors.New("site refuses")
	// ErrRebuilt: the site's store is another one than was asked for.
	ErrRebuilt = errors.New("site has begun its history anew")
	// ErrUnavailable: the site is not there, or its store is not open.
	ErrUnavailable = errors.New("site is not available")
)

// Client asks the agent of one site. It is safe for concurrent use; its calls
// share one connection, which is made when needed.
type Client struct {
	transport *http.Transport
	identify  *connect.Client[IdentifyRequest, Identity]
	exchange  *connect.Client[Terms, Terms]
	records   *connect.Client[RecordsRequest, Records]
	tail      *connect.Client[TailRequest, TailEvent]

	mu     sync.Mutex
	closed bool
	conns  []net.Conn // all that were ever made: one, as a rule
}

// NewClient asks the agent at the other end of what dial returns, which must be
// known to be the site that is meant: over the overlay it is.
func NewClient(dial func(ctx context.Context) (net.Conn, error)) *Client {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	c := &Client{}
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx, dial) },
		Protocols:   &protocols, DisableCompression: true, IdleConnTimeout: 30 * time.Second,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerConnection: 1 << 20, MaxReceiveBufferPerStream: 512 << 10, MaxReadFrameSize: 64 << 10,
			SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second,
		},
	}
	options := []connect.ClientOption{
		connect.WithCodec(codec{}), connect.WithReadMaxBytes(messageLimit), connect.WithAcceptCompression("gzip", nil, nil),
	}
	const url = "http://agent"
	client := &http.Client{Transport: t}
	c.transport = t
	c.identify = connect.NewClient[IdentifyRequest, Identity](client, url+identifyMethod, options...)
	c.exchange = connect.NewClient[Terms, Terms](client, url+exchangeMethod, options...)
	c.records = connect.NewClient[RecordsRequest, Records](client, url+recordsMethod, options...)
	c.tail = connect.NewClient[TailRequest, TailEvent](client, url+tailMethod, options...)
	return c
}

func (c *Client) dial(ctx context.Context, dial func(ctx context.Context) (net.Conn, error)) (net.Conn, error) {
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		conn.Close()
		return nil, net.ErrClosed
	}
	c.conns = append(c.conns, conn)
	return conn, nil
}

// Close ends the connection and every call.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, conn := range c.conns {
		conn.Close()
	}
	c.transport.CloseIdleConnections()
}

// Identify asks whose store it is.
func (c *Client) Identify(ctx context.Context) (*Identity, error) {
	r, err := c.identify.CallUnary(ctx, connect.NewRequest(&IdentifyRequest{}))
	if err != nil {
		return nil, failure("identify", err)
	}
	return r.Msg, nil
}

// Exchange shows a site what is known here about the dashboard role, and
// returns what it knows.
func (c *Client) Exchange(ctx context.Context, t *Terms) (*Terms, error) {
	r, err := c.exchange.CallUnary(ctx, connect.NewRequest(t))
	if err != nil {
		return nil, failure("exchange terms", err)
	}
	return r.Msg, nil
}

// Records passes the records of a range to f, newest first, until f fails or
// the range is through. While f works, the site waits.
func (c *Client) Records(ctx context.Context, r *RecordsRequest, f func(*Records) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.records.CallServerStream(ctx, connect.NewRequest(r))
	if err != nil {
		return failure("records", err)
	}
	return drain("records", s, cancel, f)
}

// Tail passes what comes after a record to f until f fails or ctx ends.
func (c *Client) Tail(ctx context.Context, r *TailRequest, f func(*TailEvent) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.tail.CallServerStream(ctx, connect.NewRequest(r))
	if err != nil {
		return failure("tail", err)
	}
	return drain("tail", s, cancel, f)
}

func drain[T any](what string, s *connect.ServerStreamForClient[T], cancel func(), f func(*T) error) error {
	for s.Receive() {
		if err := f(s.Msg()); err != nil {
			cancel() // Close would else read the rest
			_ = s.Close()
			return err
		}
	}
	err := s.Err()
	cancel()
	_ = s.Close()
	if err != nil {
		return failure(what, err)
	}
	return nil
}

// failure gives an error of connect the meaning that it has for a collector.
func failure(what string, err error) error {
	kind := ErrUnavailable
	switch connect.CodeOf(err) {
	case connect.CodePermissionDenied:
		kind = ErrRefused
	case connect.CodeFailedPrecondition:
		kind = ErrRebuilt
	case connect.CodeCanceled:
		if errors.Is(err, context.Canceled) {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return fmt.Errorf("%s: %w: %w", what, kind, err)
}
