package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"patronus/netstack/packet"
)

const (
	// waiting is how many packets wait for a slow reader.
	waiting = 1024
	// flushEvery bounds how long a packet waits to be written, so that a person
	// sees it.
	flushEvery = 200 * time.Millisecond
	// maxSnap is the largest packet there is, a superpacket.
	maxSnap = 65535
)

// Options are the caps of a capture; zero means none, but for SnapSize, whose
// zero means whole packets.
type Options struct {
	Point    string  // where the engine is to offer packets from, in its own words
	Filter   *Filter // nil selects all
	SnapSize int     // bytes kept of each packet
	Packets  int     // after which it ends
	Bytes    int     // kept, after which it ends
}

// Result says what became of a capture.
type Result struct {
	Packets int    `json:"packets"`
	Bytes   int    `json:"bytes"`
	Missed  uint64 `json:"missed"` // packets that the reader was too slow for
}

// Tap is one open capture.
type Tap struct {
	o      Options
	ring   chan *record
	missed atomic.Uint64
	pool   sync.Pool
}

// record is a packet on its way to the writer.
type record struct {
	at    time.Time
	iface string
	size  int
	data  []byte
}

// New opens a tap.
func New(o Options) *Tap {
	if o.SnapSize <= 0 || o.SnapSize > maxSnap {
		o.SnapSize = maxSnap
	}
	if o.Filter == nil {
		o.Filter = &Filter{}
	}
	t := &Tap{o: o, ring: make(chan *record, waiting)}
	t.pool.New = func() any { return &record{} }
	return t
}

// Point is Options.Point.
func (t *Tap) Point() string { return t.o.Point }

// Waiting is how many packets were offered and not written yet.
func (t *Tap) Waiting() int { return len(t.ring) }

// Wants reports whether the tap's filter selects a packet.
func (t *Tap) Wants(in *packet.Info) bool { return t.o.Filter.Match(in) }

// Offer gives a packet to the tap, under the name of an interface of the file.
// Borrowed: b. It never blocks.
func (t *Tap) Offer(b []byte, iface string) {
	if len(t.ring) == cap(t.ring) {
		t.missed.Add(1)
		return
	}
	r := t.pool.Get().(*record)
	r.at, r.iface, r.size = time.Now(), iface, len(b)
	r.data = append(r.data[:0], b[:min(len(b), t.o.SnapSize)]...)
	select {
	case t.ring <- r:
	default:
		t.missed.Add(1)
		t.pool.Put(r)
	}
}

// Run writes what is offered to w until a cap is reached, ctx ends, or w fails.
// Only the last is an error.
func (t *Tap) Run(ctx context.Context, w io.Writer) (Result, error) {
	var res Result
	out, err := t.write(ctx, w, &res)
	if err == nil && out != nil {
		err = out.Flush()
	}
	res.Missed = t.missed.Load()
	if err != nil {
		return res, fmt.Errorf("capture: %w", err)
	}
	return res, nil
}

func (t *Tap) write(ctx context.Context, w io.Writer, res *Result) (*pcapgo.NgWriter, error) {
	options := pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{
		Hardware: runtime.GOARCH, OS: runtime.GOOS, Application: "patronus",
	}}
	// A section has at least one interface: the first is there before any packet.
	const first = "any"
	out, err := pcapgo.NewNgWriterInterface(w, t.iface(first), options)
	if err != nil {
		return nil, err
	}
	known := map[string]int{first: 0}
	if err := out.Flush(); err != nil {
		return nil, err
	}
	flush := time.NewTicker(flushEvery)
	defer flush.Stop()
	for {
		select {
		case <-ctx.Done():
			return out, nil
		case <-flush.C:
			if err := out.Flush(); err != nil {
				return nil, err
			}
		case r := <-t.ring:
			id, ok := known[r.iface]
			if !ok {
				if id, err = out.AddInterface(t.iface(r.iface)); err != nil {
					return nil, err
				}
				known[r.iface] = id
			}
			info := gopacket.CaptureInfo{Timestamp: r.at, CaptureLength: len(r.data), Length: r.size, InterfaceIndex: id}
			if err := out.WritePacket(info, r.data); err != nil {
				return nil, err
			}
			res.Packets++
			res.Bytes += len(r.data)
			t.pool.Put(r)
			if t.o.Packets > 0 && res.Packets >= t.o.Packets || t.o.Bytes > 0 && res.Bytes >= t.o.Bytes {
				return out, nil
			}
		}
	}
}

func (t *Tap) iface(name string) pcapgo.NgInterface {
	return pcapgo.NgInterface{
		Name: name, Filter: t.o.Filter.String(), OS: runtime.GOOS,
		LinkType: layers.LinkTypeRaw, SnapLength: uint32(t.o.SnapSize), TimestampResolution: 9,
	}
}

// maxTaps bounds the captures that are open at once.
const maxTaps = 4

// ErrTooMany: as many captures are open as may be.
var ErrTooMany = errors.New("too many captures are running")

// Taps is the set of open taps, read by the packet path. The zero value has
// none.
type Taps struct {
	mu   sync.Mutex
	open atomic.Pointer[[]*Tap]
}

// Load is the open taps, nil if there are none. It is one atomic load.
func (s *Taps) Load() []*Tap {
	if p := s.open.Load(); p != nil {
		return *p
	}
	return nil
}

// Add opens a tap for all to see; remove takes it out again.
func (s *Taps) Add(t *Tap) (remove func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.Load()
	if len(old) >= maxTaps {
		return nil, ErrTooMany
	}
	s.set(append(old[:len(old):len(old)], t))
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		var left []*Tap
		for _, o := range s.Load() {
			if o != t {
				left = append(left, o)
			}
		}
		s.set(left)
	}, nil
}

func (s *Taps) set(all []*Tap) {
	if len(all) == 0 {
		s.open.Store(nil)
		return
	}
	s.open.Store(&all)
}
