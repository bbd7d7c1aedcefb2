package collect

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"patronus/appliance/agent"
	"patronus/appliance/store"
)

// origin is the store of a site in a test: records are made when asked for.
type origin struct {
	site string

	mu      sync.Mutex
	node    string
	epoch   uint64
	head    uint64
	gone    uint64 // records up to this one were retired
	damaged map[uint64]bool
	unfit   map[uint64]bool // records whose checksum is wrong when they arrive
	open    []int64         // times of samples that are not sealed
	served  map[uint64]int
	tails   map[chan store.Batch]struct{}
}

func newOrigin(site string, head uint64) *origin {
	return &origin{
		site: site, node: site + "-1", epoch: 1, head: head, damaged: map[uint64]bool{}, unfit: map[uint64]bool{},
		served: map[uint64]int{}, tails: map[chan store.Batch]struct{}{},
	}
}

func (o *origin) Identity() (string, uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.node, o.epoch
}

func (o *origin) Head() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.head
}

func (o *origin) Section(from, to uint64, limit, size int) (store.Section, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	sec := store.Section{First: from, Last: to}
	got := 0
	for seq := min(to, o.head); seq >= from && seq > o.gone; seq-- {
		if o.damaged[seq] {
			sec.Damaged = append(sec.Damaged, seq)
		} else {
			r := o.record(seq)
			sec.Records = append(sec.Records, r)
			got += len(r.Value)
		}
		o.served[seq]++
		if len(sec.Records) == limit || got > size {
			sec.First = seq
			break
		}
	}
	return sec, nil
}

func (o *origin) Series(string) []store.Series {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.open) == 0 {
		return nil
	}
	return []store.Series{{Site: o.site, Path: "a.b~c.d"}}
}

func (o *origin) Samples(_ store.Series, from, to int64) iter.Seq2[store.Sample, error] {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []store.Sample
	for _, at := range o.open {
		if at >= from && at < to {
			out = append(out, store.Sample{At: at})
		}
	}
	return func(yield func(store.Sample, error) bool) {
		for _, v := range out {
			if !yield(v, nil) {
				return
			}
		}
	}
}

// record has a value that says what it is and ends in a checksum bound to its
// key.
func (o *origin) record(seq uint64) store.Record {
	key := fmt.Appendf(nil, "e/%s/%s/%08d", o.site, o.node, seq)
	value := make([]byte, 200, 204)
	binary.BigEndian.PutUint64(value, seq)
	sum := crc32.ChecksumIEEE(append(append([]byte(nil), key...), value...))
	if o.unfit[seq] {
		sum++
	}
	return store.Record{Seq: seq, Kind: store.KindEvent, Key: key, Value: binary.BigEndian.AppendUint32(value, sum)}
}

func (o *origin) Tail(ctx context.Context, _ string, f func(store.Batch)) error {
	ch := make(chan store.Batch, 16)
	o.mu.Lock()
	o.tails[ch] = struct{}{}
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		delete(o.tails, ch)
		o.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case b := <-ch:
			f(b)
		}
	}
}

// tick appends an unsealed tick.
func (o *origin) tick(b store.Batch) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for ch := range o.tails {
		select {
		case ch <- b:
		default:
		}
	}
}

func (o *origin) grow(n uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.head += n
}

func (o *origin) rebuild(node string, epoch, head uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.node, o.epoch, o.head, o.gone = node, epoch, head, 0
}

// sink is the dashboard's store in a test: it checks what it is given.
type sink struct {
	mu       sync.Mutex
	kept     map[string]map[string][]byte // by site and key
	cursors  map[string][]byte
	imports  int
	fail     func() error   // asked before each import
	appended map[string]int // ticks
	samples  map[string]int // in them
	order    []uint64       // in which records of one site arrived
}

func newSink() *sink {
	return &sink{kept: map[string]map[string][]byte{}, cursors: map[string][]byte{}, appended: map[string]int{}, samples: map[string]int{}}
}

func (s *sink) Append(_ context.Context, b store.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.appended[b.Site]++
	s.samples[b.Site] += len(b.Samples)
	return nil
}

func (s *sink) Import(site string, recs []store.Record, cursor []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.imports++
	if s.fail != nil {
		if err := s.fail(); err != nil {
			return err
		}
	}
	for _, r := range recs {
		n := len(r.Value) - 4
		if crc32.ChecksumIEEE(append(append([]byte(nil), r.Key...), r.Value[:n]...)) != binary.BigEndian.Uint32(r.Value[n:]) {
			return fmt.Errorf("%s: %w", r.Key, store.ErrDamaged)
		}
	}
	if s.kept[site] == nil {
		s.kept[site] = map[string][]byte{}
	}
	for _, r := range recs {
		s.kept[site][string(r.Key)] = append([]byte(nil), r.Value...)
		s.order = append(s.order, r.Seq)
	}
	s.cursors[site] = append([]byte(nil), cursor...)
	return nil
}

func (s *sink) Cursor(site string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cursors[site], nil
}

func (s *sink) count(site string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.kept[site])
}

// ticks are how many unsealed ticks of a site were appended, and the samples in
// them.
func (s *sink) ticks(site string) (ticks, samples int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.appended[site], s.samples[site]
}

// network is the overlay in memory.
type network struct {
	mu        sync.Mutex
	addresses map[netip.Addr]string
	listeners map[string]*pipes
	cut       map[string]bool
	conns     map[*pipe]struct{}
	dials     int
}

func newNetwork() *network {
	return &network{addresses: map[netip.Addr]string{}, listeners: map[string]*pipes{}, cut: map[string]bool{}, conns: map[*pipe]struct{}{}}
}

func (n *network) address(i int) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfd, 0x50, 14: byte(i >> 8), 15: byte(i)})
}

// join gives a site an overlay address. The caller holds mu.
func (n *network) join(site string) {
	for _, s := range n.addresses {
		if s == site {
			return
		}
	}
	n.addresses[n.address(len(n.addresses)+1)] = site
}

func (n *network) siteOf(a netip.Addr) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s, ok := n.addresses[a]
	return s, ok
}

// serve offers a store under a name until ctx ends.
func (n *network) serve(ctx context.Context, t testing.TB, all *sync.WaitGroup, site string, o agent.Source, allow func(string) error) {
	n.mu.Lock()
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[site] = l
	n.join(site)
	n.mu.Unlock()
	server := agent.NewServer(agent.Options{
		Self:    func() (string, string) { return "lab", site },
		Source:  func() (agent.Source, bool) { return o, true },
		SiteOf:  n.siteOf,
		Allow:   allow,
		Version: "test", Logger: slog.New(slog.DiscardHandler),
	})
	all.Go(func() {
		if err := server.Run(ctx, l); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// dial connects from a site to another.
func (n *network) dial(ctx context.Context, from, to string) (net.Conn, error) {
	n.mu.Lock()
	n.dials++
	l, cut := n.listeners[to], n.cut[to] || n.cut[from]
	var source netip.Addr
	for a, s := range n.addresses {
		if s == from {
			source = a
		}
	}
	n.mu.Unlock()
	if cut || l == nil {
		<-ctx.Done() // as a SYN into a black hole
		return nil, ctx.Err()
	}
	near, far := net.Pipe()
	a := &pipe{Conn: near, network: n, ends: [2]string{from, to}, remote: source}
	b := &pipe{Conn: far, network: n, ends: [2]string{from, to}, remote: source}
	select {
	case l.conns <- b:
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[a], n.conns[b] = struct{}{}, struct{}{}
	return a, nil
}

func (n *network) dialled() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

// partition makes a black hole of a site: connections that are open lose
// everything from then on, and new ones do not come about.
func (n *network) partition(site string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[site] = cut
	for c := range n.conns {
		if cut && (c.ends[0] == site || c.ends[1] == site) {
			c.mu.Lock()
			c.dead = true
			c.mu.Unlock()
		}
	}
}

// pipe is one end of a connection in memory.
type pipe struct {
	net.Conn
	network *network
	ends    [2]string
	remote  netip.Addr

	mu   sync.Mutex
	dead bool
}

func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	dead := p.dead
	p.mu.Unlock()
	if dead {
		return len(b), nil
	}
	return p.Conn.Write(b)
}

func (p *pipe) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.remote, 40000))
}

func (p *pipe) Close() error {
	p.network.mu.Lock()
	delete(p.network.conns, p)
	p.network.mu.Unlock()
	return p.Conn.Close()
}

// pipes is a listener of connections in memory.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// world is a fabric of origins and one dashboard, "hq".
type world struct {
	t       testing.TB
	net     *network
	origins map[string]*origin
	sink    *sink
	fleet   *Fleet
	names   []string

	ctx   context.Context
	stop  context.CancelFunc
	sites sync.WaitGroup

	stopFleet context.CancelFunc
	running   sync.WaitGroup
}

func newWorld(t testing.TB, origins ...*origin) *world {
	w := &world{t: t, net: newNetwork(), origins: map[string]*origin{}, sink: newSink()}
	w.net.join("hq")
	w.ctx, w.stop = context.WithCancel(context.Background())
	allow := func(site string) error {
		if site != "hq" {
			return errors.New("no dashboard")
		}
		return nil
	}
	for _, o := range origins {
		w.origins[o.site] = o
		w.names = append(w.names, o.site)
		w.net.serve(w.ctx, t, &w.sites, o.site, o, allow)
	}
	return w
}

// start runs the dashboard; end stops it, keeping what it stored.
func (w *world) start() {
	w.fleet = NewFleet(Options{Sink: w.sink, Dial: func(ctx context.Context, site string) (net.Conn, error) {
		return w.net.dial(ctx, "hq", site)
	}})
	w.fleet.SetSites(w.names)
	ctx, stop := context.WithCancel(w.ctx)
	w.stopFleet = stop
	w.running.Go(func() { _ = w.fleet.Run(ctx) })
}

func (w *world) end() {
	w.stopFleet()
	w.running.Wait()
}

func (w *world) close() {
	w.end()
	w.stop()
	w.sites.Wait()
}

// complete waits until everything is here, in the bubble's time.
func (w *world) complete(patience time.Duration) time.Duration {
	w.t.Helper()
	began := time.Now()
	for !w.fleet.Report().Complete {
		if time.Since(began) > patience {
			w.t.Fatalf("not complete after %v: %+v", patience, w.fleet.Report())
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(began)
}

func (w *world) site(name string) Site {
	for _, s := range w.fleet.Report().Sites {
		if s.Site == name {
			return s
		}
	}
	w.t.Fatalf("no site %s", name)
	return Site{}
}
