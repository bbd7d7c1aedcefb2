package vnet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

// UDPLoad is a stream of numbered packets.
type UDPLoad struct {
	// Rate of UDP payload in bit/s; it must be positive.
	Rate int64
	// Size of each payload in bytes, at least UDPLoadMin.
	Size int
	// Duration and Count end the stream, whichever comes first; 0 does not.
	Duration time.Duration
	Count    uint64
}

// UDPLoadMin is what the numbering takes: magic, stream, sequence, time.
const UDPLoadMin = 28

const udpMagic = 0x70617472

// sinkStreams bounds the streams that a sink tells apart.
const sinkStreams = 1024

// ErrLoad means that a load makes no sense.
var ErrLoad = errors.New("load out of range")

// UDPSent is what a generator did.
type UDPSent struct {
	Packets uint64 `json:"packets"`
	// Refused were not taken by the stack.
	Refused uint64        `json:"refused"`
	Elapsed time.Duration `json:"-"`
}

// interval is the time between packets.
func (l UDPLoad) interval() time.Duration {
	return time.Duration(float64(l.Size) * 8 * float64(time.Second) / float64(l.Rate))
}

// maxBurst is how much a generator catches up when the machine was late.
const maxBurst = 50 * time.Millisecond

// SendUDP sends a load to a sink at remote until the load or ctx ends; the end
// of ctx is no error. What it could not send is counted, not retried.
func (h *Host) SendUDP(ctx context.Context, remote netip.AddrPort, l UDPLoad) (UDPSent, error) {
	var sent UDPSent
	if l.Rate <= 0 || l.Size < UDPLoadMin || l.Size > 65507 {
		return sent, fmt.Errorf("%w: %d bytes at %d bit/s", ErrLoad, l.Size, l.Rate)
	}
	c, err := h.DialUDP(netip.AddrPort{}, remote)
	if err != nil {
		return sent, err
	}
	defer c.Close()
	b := make([]byte, l.Size)
	binary.BigEndian.PutUint32(b, udpMagic)
	binary.BigEndian.PutUint64(b[4:], rand.Uint64())
	every := l.interval()
	start := time.Now()
	next := start
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		sent.Elapsed = now.Sub(start)
		if l.Count > 0 && sent.Packets+sent.Refused >= l.Count || l.Duration > 0 && sent.Elapsed >= l.Duration {
			return sent, nil
		}
		if wait := next.Sub(now); wait > 0 {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return sent, nil
			case <-timer.C:
			}
			continue
		} else if wait < -maxBurst {
			next = now.Add(-maxBurst)
		}
		if ctx.Err() != nil {
			return sent, nil
		}
		next = next.Add(every)
		binary.BigEndian.PutUint64(b[12:], sent.Packets)
		binary.BigEndian.PutUint64(b[20:], uint64(now.UnixNano()))
		if _, err := c.Write(b); err != nil {
			sent.Refused++
			continue
		}
		sent.Packets++
	}
}

// UDPSink receives loads.
type UDPSink struct {
	conn *gonet.UDPConn

	mu      sync.Mutex
	streams map[uint64]*arrivals
	latency latencies
	strange uint64
}

// SinkUDP opens a sink at a local address. Call Run.
func (h *Host) SinkUDP(local netip.AddrPort) (*UDPSink, error) {
	c, err := h.DialUDP(local, netip.AddrPort{})
	if err != nil {
		return nil, err
	}
	return &UDPSink{conn: c, streams: make(map[uint64]*arrivals)}, nil
}

// Run receives until ctx ends, and closes the sink.
func (s *UDPSink) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	defer s.conn.Close()
	b := make([]byte, 64<<10)
	for {
		n, _, err := s.conn.ReadFrom(b)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
				return nil
			}
			return fmt.Errorf("udp sink: %w", err)
		}
		s.observe(b[:n], time.Now())
	}
}

// String is the task's name.
func (s *UDPSink) String() string { return "udp sink" }

func (s *UDPSink) observe(b []byte, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(b) < UDPLoadMin || binary.BigEndian.Uint32(b) != udpMagic {
		s.strange++
		return
	}
	id := binary.BigEndian.Uint64(b[4:])
	a := s.streams[id]
	if a == nil {
		if len(s.streams) == sinkStreams {
			s.strange++
			return
		}
		a = new(arrivals)
		s.streams[id] = a
	}
	if a.observe(binary.BigEndian.Uint64(b[12:]), len(b), now) {
		s.latency.observe(now.Sub(time.Unix(0, int64(binary.BigEndian.Uint64(b[20:])))))
	}
}

// Report sums up all streams so far.
func (s *UDPSink) Report() UDPReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	var r UDPReport
	for _, a := range s.streams {
		r.add(&a.report)
	}
	s.latency.fill(&r)
	return r
}

// Reset forgets all streams: what continues counts as new from its next packet on.
func (s *UDPSink) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.streams)
	s.latency = latencies{}
}

// Strange is how many packets were no load, or of too many streams.
func (s *UDPSink) Strange() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.strange
}
