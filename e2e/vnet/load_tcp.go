package vnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// TCPLoad is one connection that sends.
type TCPLoad struct {
	// Rate of payload in bit/s; 0 sends as fast as TCP goes.
	Rate int64
	// Bytes and Duration end it, whichever comes first; 0 does not.
	Bytes    int64
	Duration time.Duration
}

// TCPReport is what one end of a load saw.
type TCPReport struct {
	Connections int           `json:"connections"`
	Bytes       int64         `json:"bytes"`
	Elapsed     time.Duration `json:"-"`
	// LongestStall is the longest time in which no byte moved.
	LongestStall time.Duration `json:"-"`
}

// Goodput is the average in bit/s.
func (r TCPReport) Goodput() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Bytes) * 8 / r.Elapsed.Seconds()
}

const (
	tcpChunk = 32 << 10
	// tcpTick is the grain of a limited rate.
	tcpTick = 5 * time.Millisecond
	// sinkConns bounds the connections of a sink; more wait to be accepted.
	sinkConns = 256
)

// SendTCP connects to a sink at remote and sends until the load or ctx ends; the
// end of ctx is no error once connected. The report counts what TCP accepted.
func (h *Host) SendTCP(ctx context.Context, remote netip.AddrPort, l TCPLoad) (TCPReport, error) {
	var r TCPReport
	c, err := h.DialTCP(ctx, remote)
	if err != nil {
		return r, err
	}
	defer c.Close()
	r.Connections = 1
	// A deadline in the past ends a Write that waits.
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	start := time.Now()
	if l.Duration > 0 {
		if err := c.SetWriteDeadline(start.Add(l.Duration)); err != nil {
			return r, fmt.Errorf("tcp load: %w", err)
		}
	}
	chunk := make([]byte, tcpChunk)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for last := start; ; {
		b := chunk
		if l.Bytes > 0 {
			b = chunk[:min(int64(len(chunk)), l.Bytes-r.Bytes)]
		}
		if len(b) == 0 {
			break
		}
		if l.Rate > 0 {
			b = b[:min(len(b), max(1, int(l.Rate/8*int64(tcpTick)/int64(time.Second))))]
			due := start.Add(time.Duration(timeFor(r.Bytes, l.Rate)))
			timer.Reset(time.Until(due))
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
		}
		n, err := c.Write(b)
		now := time.Now()
		r.Bytes += int64(n)
		r.LongestStall = max(r.LongestStall, now.Sub(last))
		last = now
		r.Elapsed = now.Sub(start)
		if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) || l.Duration > 0 && r.Elapsed >= l.Duration {
			break
		}
		if err != nil {
			return r, fmt.Errorf("tcp load to %s: %w", remote, err)
		}
	}
	r.Elapsed = time.Since(start)
	return r, nil
}

// TCPSink accepts connections and reads them to their end.
type TCPSink struct {
	l net.Listener

	mu    sync.Mutex
	r     TCPReport
	start time.Time
	end   time.Time
}

// SinkTCP listens at a local address. Call Run.
func (h *Host) SinkTCP(local netip.AddrPort) (*TCPSink, error) {
	l, err := h.ListenTCP(local)
	if err != nil {
		return nil, err
	}
	return &TCPSink{l: l}, nil
}

// Run serves until ctx ends, then closes listener and connections.
func (s *TCPSink) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(sinkConns)
	stop := context.AfterFunc(ctx, func() { s.l.Close() })
	defer stop()
	defer s.l.Close()
	for {
		c, err := s.l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return g.Wait()
			}
			return errors.Join(fmt.Errorf("tcp sink: %w", err), g.Wait())
		}
		g.Go(func() error {
			s.read(ctx, c)
			return nil
		})
	}
}

// String is the task's name.
func (s *TCPSink) String() string { return "tcp sink" }

// read counts one connection's bytes. How it ends is its sender's business.
func (s *TCPSink) read(ctx context.Context, c net.Conn) {
	// Not Close: in gVisor that leaves a Read waiting.
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	defer c.Close()
	last := time.Now()
	s.mu.Lock()
	s.r.Connections++
	if s.start.IsZero() {
		s.start = last
	}
	s.mu.Unlock()
	b := make([]byte, tcpChunk)
	for {
		n, err := c.Read(b)
		now := time.Now()
		s.mu.Lock()
		if n > 0 || !errors.Is(err, io.EOF) {
			s.r.Bytes += int64(n)
			s.r.LongestStall = max(s.r.LongestStall, now.Sub(last))
			s.end = now
		}
		s.mu.Unlock()
		if err != nil {
			return
		}
		last = now
	}
}

// Report sums up all connections so far; Elapsed is from the first connection
// to the last byte.
func (s *TCPSink) Report() TCPReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.r
	if !s.start.IsZero() && s.end.After(s.start) {
		r.Elapsed = s.end.Sub(s.start)
	}
	return r
}
