package tunnel

import (
	"encoding/binary"
	"os"
	"sync"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"patronus/netstack/packet"
)

// shim is the tun.Device that wireguard-go reads from and writes to.
type shim struct {
	t       *Tunnel
	mtu     atomic.Int32
	jobs    []job
	round   uint64        // number of the batch
	inbound sync.Pool     // *[]Inbound
	ready   chan struct{} // closed when the device may make buffers

	mu     sync.Mutex
	events chan tun.Event
	closed bool
}

// headerLen is what the device keeps free before a packet that it reads or
// writes: the header of the transport message.
const headerLen = device.MessageTransportHeaderSize

func newShim(t *Tunnel) *shim {
	s := &shim{t: t, events: make(chan tun.Event, 4), ready: make(chan struct{}), jobs: make([]job, 0, MaxBatchSize)}
	s.mtu.Store(int32(t.o.MTU))
	s.inbound.New = func() any {
		in := make([]Inbound, 0, MaxBatchSize)
		return &in
	}
	return s
}

// Read fills bufs with the next packets to encrypt. It sleeps until there is
// one.
func (s *shim) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for {
		n, ok := s.fill(bufs, sizes, offset)
		if !ok {
			return 0, os.ErrClosed
		}
		if n > 0 {
			return n, nil
		}
		<-s.t.queue.wake
	}
}

// fill plans one batch and copies it.
func (s *shim) fill(bufs [][]byte, sizes []int, offset int) (n int, ok bool) {
	q := s.t.queue
	q.reading.Lock()
	defer q.reading.Unlock()
	s.round++
	s.jobs, ok = q.plan(s.jobs[:0], len(bufs), s.t.o.Now())
	for i := range s.jobs {
		n += s.place(&s.jobs[i], bufs[n:], sizes[n:], offset)
	}
	clear(s.jobs)
	return n, ok
}

// place copies the segments of one job, and releases its buffer with the last.
func (s *shim) place(j *job, bufs [][]byte, sizes []int, offset int) (n int) {
	p, outer := j.l.p, 0
	if p.path {
		outer = packet.OuterLen
	}
	info := &j.e.b.Info
	tx, bytes, void := p.count.txPackets.Load(), 0, 0
	for ; n < j.take; n++ {
		room := view(bufs[n], s.t.room)
		b := room[:len(room)-tailRoom]
		length, ok := j.seg.Next(b[offset+outer:])
		if !ok { // longer than any datagram, or than Options.MTU allows for
			sizes[n] = 0
			void++
			continue
		}
		if p.path {
			packet.PutOuter(b[offset:], s.t.local, p.remote, info.Version, info.TOS, length)
		}
		tx++
		bytes += length
		if j.e.probe && s.t.o.Stamp != nil {
			s.t.o.Stamp(p, b[offset+outer:offset+outer+length], tx)
		}
		sizes[n] = outer + length
		if p.round != s.round {
			p.round = s.round
			putTag(room, offset+outer+length, p.id)
		}
	}
	p.count.txPackets.Store(tx)
	p.count.txBytes.Add(uint64(bytes))
	if void > 0 {
		p.count.malformed.Add(uint64(void))
		s.t.queue.void(p, void)
	}
	if j.last {
		j.e.b.Release()
	} else {
		j.l.seg = j.seg
	}
	return n
}

// Write hands over what the device has decrypted: packets of one peer.
func (s *shim) Write(bufs [][]byte, offset int) (int, error) {
	in := s.inbound.Get().(*[]Inbound)
	pkts, now := (*in)[:0], s.t.o.Now()
	var run tallyRun
	for _, b := range bufs {
		// The device leaves the header of the transport message in place.
		head := b[offset-headerLen : offset]
		i := Inbound{
			Bytes:    b[offset:],
			Receiver: binary.LittleEndian.Uint32(head[4:]),
			Counter:  binary.LittleEndian.Uint64(head[8:]),
			At:       now,
		}
		i.Peer = s.t.deliver(&run, i.Receiver, i.Bytes)
		if i.Peer != nil {
			pkts = append(pkts, i)
		}
	}
	run.flush()
	if len(pkts) > 0 {
		s.t.o.Handler.FromTunnel(s.t, pkts)
	}
	clear(pkts)
	*in = pkts[:0]
	s.inbound.Put(in)
	return len(bufs), nil
}

// MTU is Options.MTU, or what SetMTU made of it.
func (s *shim) MTU() (int, error) { return int(s.mtu.Load()), nil }

func (s *shim) setMTU(mtu int) {
	s.mtu.Store(int32(mtu))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	select {
	case s.events <- tun.EventMTUUpdate:
	default: // the device reads the newest value when it sees an earlier event
	}
}

// Name is the uplink's.
func (s *shim) Name() (string, error) { return s.t.o.Name, nil }

// File is nil: there is no file behind it.
func (s *shim) File() *os.File { return nil }

// Events is closed by Close.
func (s *shim) Events() <-chan tun.Event { return s.events }

// BatchSize is Options.BatchSize. The device's reading goroutine asks for it
// before it takes buffers: it has to wait for the slots.
func (s *shim) BatchSize() int {
	<-s.ready
	return s.t.o.BatchSize
}

// Close ends Read. It may be called more than once.
func (s *shim) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.events)
		s.t.queue.close()
	}
	return nil
}
