package namespace

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// transfer sends n random bytes by TCP from a site's host to another's, which
// answers with their hash.
func transfer(from, to netns, addr netip.Addr, n int64) error {
	var l net.Listener
	if err := to.do(func() (err error) { l, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String()); return err }); err != nil {
		return err
	}
	defer l.Close()
	deadline := time.Now().Add(30 * time.Second)
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		defer c.Close()
		_ = c.SetDeadline(deadline)
		h := sha256.New()
		if _, err := io.CopyN(h, c, n); err != nil {
			served <- fmt.Errorf("receive: %w", err)
			return
		}
		_, err = c.Write(h.Sum(nil))
		served <- err
	}()
	c, err := from.dial(l.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(deadline)
	h := sha256.New()
	var seed [32]byte
	binary.NativeEndian.PutUint64(seed[:], uint64(n))
	if _, err := io.CopyN(io.MultiWriter(c, h), rand.NewChaCha8(seed), n); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	var got [sha256.Size]byte
	if _, err := io.ReadFull(c, got[:]); err != nil {
		return fmt.Errorf("hash: %w", err)
	}
	if want := [sha256.Size]byte(h.Sum(nil)); got != want {
		return errors.New("the bytes that arrived are not the bytes that were sent")
	}
	return <-served
}

// stream is a UDP conversation: both ends send numbered packets at a steady
// rate and note what arrives when.
type stream struct {
	ends    [2]*streamEnd // 0 sends first
	quit    chan struct{}
	senders sync.WaitGroup
	readers sync.WaitGroup
}

type streamEnd struct {
	conn *net.UDPConn
	sent atomic.Uint64

	mu       sync.Mutex
	arrivals []arrival
}

type arrival struct {
	at  time.Duration // since start of the process
	seq uint64
}

var epoch = time.Now()

// streamSize is the payload of one packet, bytes: about a voice packet.
const streamSize = 160

// newStream starts a stream between the hosts of two sites on one port. It ends
// with the test, or by stop.
func newStream(t testing.TB, a, b *site, f family, port uint16, pps int) *stream {
	t.Helper()
	from, to := netip.AddrPortFrom(a.addr(f), port), netip.AddrPortFrom(b.addr(f), port)
	return runStream(t, a.host.udp(t, from, to), b.host.udp(t, to, from), pps)
}

func runStream(t testing.TB, a, b *net.UDPConn, pps int) *stream {
	t.Helper()
	s := &stream{ends: [2]*streamEnd{{conn: a}, {conn: b}}, quit: make(chan struct{})}
	for _, e := range s.ends {
		s.readers.Go(e.receive)
	}
	// The first packet makes the flow, so that both sides agree who began it, and
	// resolves the neighbours on the way, for which only a few packets may wait.
	s.ends[0].send()
	eventually(t, 5*time.Second, "first packet of the stream", func() error {
		if s.ends[1].received() == 0 {
			return errors.New("nothing arrived")
		}
		return nil
	})
	s.ends[1].send()
	eventually(t, 5*time.Second, "first answer of the stream", func() error {
		if s.ends[0].received() == 0 {
			return errors.New("nothing arrived")
		}
		return nil
	})
	for _, e := range s.ends {
		s.senders.Go(func() { e.pace(s.quit, pps) })
	}
	t.Cleanup(func() { s.stop() })
	return s
}

func (e *streamEnd) send() {
	var b [streamSize]byte
	binary.BigEndian.PutUint64(b[:], e.sent.Add(1))
	// An error (an ICMP answer to an earlier packet) is a lost packet, which
	// the other end notices.
	_, _ = e.conn.Write(b[:])
}

// pace sends at pps; after a pause of the scheduler it catches up.
func (e *streamEnd) pace(quit <-chan struct{}, pps int) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	start, base := time.Now(), e.sent.Load()
	for {
		select {
		case <-quit:
			return
		case <-tick.C:
		}
		due := base + uint64(time.Since(start).Seconds()*float64(pps))
		for e.sent.Load() < due {
			e.send()
		}
	}
}

func (e *streamEnd) receive() {
	b := make([]byte, 2048)
	for {
		n, err := e.conn.Read(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != streamSize {
			continue // an ICMP answer
		}
		a := arrival{at: time.Since(epoch), seq: binary.BigEndian.Uint64(b)}
		e.mu.Lock()
		e.arrivals = append(e.arrivals, a)
		e.mu.Unlock()
	}
}

func (e *streamEnd) received() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return uint64(len(e.arrivals))
}

// stop ends the senders, waits for what is under way, and closes. It returns
// how many packets each direction lost.
func (s *stream) stop() (lost [2]int64) {
	select {
	case <-s.quit:
		return lost
	default:
	}
	close(s.quit)
	s.senders.Wait()
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		if s.ends[1].received() >= s.ends[0].sent.Load() && s.ends[0].received() >= s.ends[1].sent.Load() {
			break
		}
	}
	lost[0] = int64(s.ends[0].sent.Load()) - int64(s.ends[1].received())
	lost[1] = int64(s.ends[1].sent.Load()) - int64(s.ends[0].received())
	for _, e := range s.ends {
		e.conn.Close()
	}
	s.readers.Wait()
	return lost
}

// outage is the longest gap between two arrivals since a moment.
func (e *streamEnd) outage(since time.Duration) (gap time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i, _ := slices.BinarySearchFunc(e.arrivals, since, func(a arrival, at time.Duration) int { return int(a.at - at) })
	for i = max(i, 1); i < len(e.arrivals); i++ {
		gap = max(gap, e.arrivals[i].at-e.arrivals[i-1].at)
	}
	return gap
}

// mark is a moment in a stream.
type mark struct {
	at   time.Duration
	sent [2]uint64
}

func (s *stream) mark() mark {
	return mark{at: time.Since(epoch), sent: [2]uint64{s.ends[0].sent.Load(), s.ends[1].sent.Load()}}
}

// recovered waits until both directions have passed n packets that were sent
// after m, and returns the longest gap of either direction.
func (s *stream) recovered(t testing.TB, m mark, n uint64, within time.Duration) time.Duration {
	t.Helper()
	for i, e := range s.ends {
		after := m.sent[1-i] + n
		eventually(t, within, fmt.Sprintf("stream passes in direction %d", 1-i), func() error {
			e.mu.Lock()
			defer e.mu.Unlock()
			if last := e.arrivals[len(e.arrivals)-1]; last.seq < after || last.at < m.at {
				return fmt.Errorf("last arrival is packet %d, wanted %d", last.seq, after)
			}
			return nil
		})
	}
	out, back := s.ends[1].outage(m.at), s.ends[0].outage(m.at)
	t.Logf("longest gaps: out %v, back %v", out.Round(100*time.Microsecond), back.Round(100*time.Microsecond))
	return max(out, back)
}

// echo is a TCP connection over which blocks go back and forth; it proves that
// an established connection lives.
type echo struct {
	blocks atomic.Int64
	quit   chan struct{}
	done   chan error
}

// newEcho connects two hosts; a block goes every 5 ms, or as fast as the path
// allows.
func newEcho(t testing.TB, a, b *site, f family) *echo {
	t.Helper()
	l := b.host.listen(t, netip.AddrPortFrom(b.addr(f), 0))
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		// It ends when the client closes.
		_, _ = io.Copy(c, c)
	}()
	c, err := a.host.dial(l.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{quit: make(chan struct{}), done: make(chan error, 1)}
	go func() { e.done <- e.run(c) }()
	t.Cleanup(func() { c.Close() })
	return e
}

func (e *echo) run(c *net.TCPConn) error {
	defer c.Close()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	out, in := make([]byte, 1000), make([]byte, 1000)
	for i := uint64(0); ; i++ {
		select {
		case <-e.quit:
			return nil
		case <-tick.C:
		}
		binary.BigEndian.PutUint64(out, i)
		if _, err := c.Write(out); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, in); err != nil {
			return err
		}
		if got := binary.BigEndian.Uint64(in); got != i {
			return fmt.Errorf("block %d came back as %d", i, got)
		}
		e.blocks.Add(1)
	}
}

// alive waits for n more blocks.
func (e *echo) alive(t testing.TB, n int64, within time.Duration) {
	t.Helper()
	want := e.blocks.Load() + n
	eventually(t, within, "TCP connection goes on", func() error {
		select {
		case err := <-e.done:
			t.Fatalf("the TCP connection ended: %v", err)
		default:
		}
		if got := e.blocks.Load(); got < want {
			return fmt.Errorf("%d blocks, wanted %d", got, want)
		}
		return nil
	})
}

// stop ends the connection, which must have lived until now.
func (e *echo) stop(t testing.TB) {
	t.Helper()
	close(e.quit)
	select {
	case err := <-e.done:
		if err != nil {
			t.Errorf("TCP connection: %v", err)
		}
	case <-time.After(15 * time.Second):
		t.Error("TCP connection: stuck")
	}
}

// distribution is a set of measured times.
type distribution []time.Duration

// at is the nearest-rank percentile.
func (d distribution) at(percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[max((len(sorted)*percent+99)/100-1, 0)]
}

func (d distribution) String() string {
	r := func(v time.Duration) time.Duration { return v.Round(100 * time.Microsecond) }
	return fmt.Sprintf("n=%d min %v p50 %v p90 %v p99 %v max %v", len(d), r(d.at(0)), r(d.at(50)), r(d.at(90)), r(d.at(99)), r(d.at(100)))
}
