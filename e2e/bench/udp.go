package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	udpPort  = 9000
	echoPort = 9001
	// lossAllowed is the share of packets that may be missing at the rate that
	// counts as carried.
	lossAllowed = 0.01
	trialTime   = 800 * time.Millisecond
	// drainTime is how long after the last packet was sent others still count:
	// what stands in a queue for longer was not carried at that rate.
	drainTime = 50 * time.Millisecond
	tick      = time.Millisecond
	burst     = 64 // packets of one system call
	trialsMax = 9
)

// udpLoad sends UDP from host A to host B.
type udpLoad struct {
	from, to *net.UDPConn
	out      []ipv4.Message
	in       []ipv4.Message
	trial    uint64
}

// listenIn opens a UDP socket in a namespace, with deep kernel buffers.
func listenIn(n netns, addr string, port uint16) (*net.UDPConn, error) {
	at, err := netip.ParseAddr(addr)
	if err != nil {
		return nil, err
	}
	var c *net.UDPConn
	err = n.do(func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, port)))
		return err
	})
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20))
		})
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func newUDPLoad(w *world) (*udpLoad, error) {
	from, err := listenIn(w.a.host, hostA, udpPort)
	if err != nil {
		return nil, err
	}
	to, err := listenIn(w.b.host, hostB, udpPort)
	if err != nil {
		from.Close()
		return nil, err
	}
	u := &udpLoad{from: from, to: to, out: make([]ipv4.Message, burst), in: make([]ipv4.Message, burst)}
	for i := range burst {
		u.out[i] = ipv4.Message{Buffers: [][]byte{make([]byte, 2000)}, Addr: to.LocalAddr()}
		u.in[i] = ipv4.Message{Buffers: [][]byte{make([]byte, 2048)}}
	}
	return u, nil
}

func (u *udpLoad) close() {
	u.from.Close()
	u.to.Close()
}

// outcome is one trial's.
type outcome struct {
	offered  float64 // packets/s that left host A
	loss     float64 // share
	saturate bool    // host A could not send what was asked for
}

// try offers rate packets/s with size bytes of payload.
func (u *udpLoad) try(rate float64, size int) (outcome, error) {
	u.trial++
	received := make(chan int, 1)
	if err := u.to.SetReadDeadline(time.Now().Add(trialTime + 2*time.Second)); err != nil {
		return outcome{}, err
	}
	go func() { received <- u.count(u.trial, size) }()
	sent, took, err := u.send(rate, size)
	if err == nil {
		err = u.to.SetReadDeadline(time.Now().Add(drainTime))
	}
	if err != nil {
		// Ends count at once.
		err = errors.Join(err, u.to.SetReadDeadline(time.Now()))
	}
	got := <-received
	if err != nil {
		return outcome{}, err
	}
	offered := float64(sent) / took.Seconds()
	return outcome{offered: offered, loss: 1 - float64(got)/float64(max(1, sent)), saturate: offered < 0.93*rate}, nil
}

// send paces by the clock, in bursts of a millisecond. A sender that was held
// up makes up for at most three of them: it must not offer a flood instead.
func (u *udpLoad) send(rate float64, size int) (sent int, took time.Duration, err error) {
	c := ipv4.NewPacketConn(u.from)
	for i := range u.out {
		b := u.out[i].Buffers[0][:size]
		binary.LittleEndian.PutUint64(b, u.trial)
		u.out[i].Buffers[0] = b
	}
	every := time.NewTicker(tick)
	defer every.Stop()
	perTick := rate * tick.Seconds()
	start := time.Now()
	last, credit := start, 0.0
	for {
		now := <-every.C
		credit = min(credit+rate*now.Sub(last).Seconds(), 3*perTick+1)
		last = now
		for credit >= 1 {
			n, err := c.WriteBatch(u.out[:min(burst, int(credit))], 0)
			if err != nil && !errors.Is(err, unix.ENOBUFS) {
				return sent, 0, fmt.Errorf("send: %w", err)
			}
			sent += n
			credit -= float64(max(1, n))
		}
		if took = time.Since(start); took >= trialTime {
			return sent, took, nil
		}
	}
}

// count receives until the deadline and counts what belongs to the trial.
func (u *udpLoad) count(trial uint64, size int) (n int) {
	c := ipv4.NewPacketConn(u.to)
	for {
		got, err := c.ReadBatch(u.in, 0)
		if err != nil {
			return n // the deadline
		}
		for i := range u.in[:got] {
			m := &u.in[i]
			if m.N == size && binary.LittleEndian.Uint64(m.Buffers[0]) == trial {
				n++
			}
		}
	}
}

// highest searches for the highest rate with less than one percent lost,
// packets/s, starting near guess. A rate is too high only if it failed twice:
// one failure may be the machine's.
func (u *udpLoad) highest(ctx context.Context, guess float64, size int) (float64, error) {
	const wide, narrow = 1.35, 1.05
	low, high, best := 0.0, 0.0, 0.0
	failed := 0
	for rate, n := guess, 0; n < trialsMax && ctx.Err() == nil; n++ {
		o, err := u.try(rate, size)
		if err != nil {
			return 0, err
		}
		switch {
		case o.loss < lossAllowed:
			best = max(best, o.offered)
			if o.saturate {
				return best, nil
			}
			low, failed = rate, 0
		case failed == 0:
			failed++
			continue
		default:
			high, failed = rate, 0
		}
		switch {
		case low == 0:
			rate = high / wide
		case high == 0:
			rate = low * wide
		case high/low < narrow:
			return best, nil
		default:
			rate = (low + high) / 2
		}
	}
	return best, nil
}

// pingPong measures round trips of small packets, one at a time, and returns
// their 50th and 99th percentiles.
func pingPong(w *world, d time.Duration) (p50, p99 time.Duration, err error) {
	a, err := listenIn(w.a.host, hostA, echoPort)
	if err != nil {
		return 0, 0, err
	}
	defer a.Close()
	b, err := listenIn(w.b.host, hostB, echoPort)
	if err != nil {
		return 0, 0, err
	}
	defer b.Close()
	near, err := blocking(a)
	if err != nil {
		return 0, 0, err
	}
	defer near.Close()
	far, err := blocking(b)
	if err != nil {
		return 0, 0, err
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		echo(int(far.Fd()))
	}()
	all, err := ping(int(near.Fd()), d)
	// Shutdown is how a blocked receive is woken.
	_ = unix.Shutdown(int(far.Fd()), unix.SHUT_RDWR)
	<-over
	far.Close()
	if err != nil {
		return 0, 0, err
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)*99/100], nil
}

// blocking is a descriptor of the socket without Go's poller, whose wake-ups
// would be measured too.
func blocking(c *net.UDPConn) (*os.File, error) {
	f, err := c.File()
	if err != nil {
		return nil, err
	}
	wait := unix.Timeval{Usec: 200_000}
	err = errors.Join(unix.SetNonblock(int(f.Fd()), false), unix.SetsockoptTimeval(int(f.Fd()), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// echo answers until the socket is shut down.
func echo(fd int) {
	b := make([]byte, 256)
	for {
		n, from, err := unix.Recvfrom(fd, b, 0)
		switch {
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
			continue
		case err != nil || n == 0:
			return
		}
		if unix.Sendto(fd, b[:n], 0, from) != nil {
			return
		}
	}
}

func ping(fd int, d time.Duration) ([]time.Duration, error) {
	to := &unix.SockaddrInet4{Port: echoPort, Addr: netip.MustParseAddr(hostB).As4()}
	var all []time.Duration
	b, in := make([]byte, 64), make([]byte, 256)
	start, lost := time.Now(), 0
	for n := uint64(1); time.Since(start) < d; n++ {
		binary.LittleEndian.PutUint64(b, n)
		at := time.Now()
		if err := unix.Sendto(fd, b, 0, to); err != nil {
			return nil, fmt.Errorf("ping: %w", err)
		}
		for {
			got, _, err := unix.Recvfrom(fd, in, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				lost++
				break
			}
			if got == len(b) && binary.LittleEndian.Uint64(in) == n {
				all = append(all, time.Since(at))
				break
			}
		}
	}
	if len(all) < 100 {
		return nil, fmt.Errorf("ping: %d answers, %d lost in %v", len(all), lost, d)
	}
	return all[len(all)/20:], nil // without the first ones, which find caches cold
}
