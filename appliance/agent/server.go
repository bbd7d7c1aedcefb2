package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"patronus/appliance/store"
)

// Port is the TCP port of the agent API on the overlay address.
const Port = 7946

// The procedures of agent.proto.
const (
	service         = "/patronus.agent.v1.Agent/"
	identifyMethod  = service + "Identify"
	exchangeMethod  = service + "Exchange"
	recordsMethod   = service + "Records"
	tailMethod      = service + "Tail"
	messageLimit    = 16 << 20         // bytes, of one message that is read
	chunkRecords    = 128              // records read from the store at once
	chunkBytes      = 256 << 10        // from where on a message is sent
	heartbeat       = 10 * time.Second // of a tail with nothing to send
	lookForSealed   = time.Second
	streamsPerPeer  = 64 // of one connection
	connectionsEach = 8  // of one site
)

// Source is the store that is offered.
type Source interface {
	Identity() (node string, epoch uint64)
	Head() uint64
	Records(from, to uint64, newestFirst bool, max int) ([]store.Record, error)
	Tail(ctx context.Context, site string, f func(store.Batch)) error
}

// Options are what a Server is made of.
type Options struct {
	// Self says who is asked: fabric and site.
	Self func() (fabric, site string)
	// Source is the store; ok is false while it cannot be opened.
	Source func() (s Source, ok bool)
	// SiteOf says whose overlay address it is.
	SiteOf func(netip.Addr) (site string, ok bool)
	// Allow says whether a site may read history.
	Allow func(site string) error
	// Exchange takes what a site says about the dashboard role, and answers
	// with what is known here.
	Exchange func(ctx context.Context, site string, t *Terms) (*Terms, error)
	Version  string
	Logger   *slog.Logger
}

// Server offers one appliance's history. It is safe for concurrent use.
type Server struct {
	o   Options
	log *slog.Logger
}

// NewServer builds a server; Run makes it listen.
func NewServer(o Options) *Server { return &Server{o: o, log: o.Logger} }

// Run answers on l, whose connections' remote addresses are overlay addresses
// of the sites they come from, until ctx ends. It closes l.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	options := []connect.HandlerOption{
		connect.WithCodec(codec{}), connect.WithReadMaxBytes(messageLimit),
		// Blocks are compressed already; the rest is small.
		connect.WithCompression("gzip", nil, nil),
	}
	mux.Handle(identifyMethod, connect.NewUnaryHandler(identifyMethod, s.identify, options...))
	mux.Handle(exchangeMethod, connect.NewUnaryHandler(exchangeMethod, s.exchange, options...))
	mux.Handle(recordsMethod, connect.NewServerStreamHandler(recordsMethod, s.records, options...))
	mux.Handle(tailMethod, connect.NewServerStreamHandler(tailMethod, s.tail, options...))
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler: mux, Protocols: &protocols, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: streamsPerPeer, MaxReceiveBufferPerConnection: 128 << 10, MaxReceiveBufferPerStream: 64 << 10,
			SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second, WriteByteTimeout: 30 * time.Second,
		},
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if p, ok := c.(*peerConn); ok {
				return context.WithValue(ctx, callerKey{}, p.site)
			}
			return ctx
		},
	}
	stop := context.AfterFunc(ctx, func() {
		// An error is one of closing what is gone anyway.
		_ = server.Close()
	})
	defer stop()
	err := server.Serve(&peerListener{Listener: l, siteOf: s.o.SiteOf, open: make(map[string]int)})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("agent api: %w", err)
}

// callerKey finds the calling site in a request's context.
type callerKey struct{}

// caller is the site at the other end, as its address says.
func caller(ctx context.Context) string {
	site, _ := ctx.Value(callerKey{}).(string)
	return site
}

func (s *Server) identify(context.Context, *connect.Request[IdentifyRequest]) (*connect.Response[Identity], error) {
	fabric, site := s.o.Self()
	id := &Identity{Fabric: fabric, Site: site, Version: s.o.Version, ClockMS: time.Now().UnixMilli()}
	src, ok := s.o.Source()
	if !ok {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("the history of this site is not open"))
	}
	id.Node, id.Epoch = src.Identity()
	id.Head = src.Head()
	return connect.NewResponse(id), nil
}

func (s *Server) exchange(ctx context.Context, r *connect.Request[Terms]) (*connect.Response[Terms], error) {
	answer, err := s.o.Exchange(ctx, caller(ctx), r.Msg)
	if err != nil {
		return nil, connect.NewError(connect.CodePermissionDenied, err)
	}
	return connect.NewResponse(answer), nil
}

// source is the store, if the caller may read it and means this one.
func (s *Server) source(ctx context.Context, node string, epoch uint64) (Source, error) {
	if err := s.o.Allow(caller(ctx)); err != nil {
		return nil, connect.NewError(connect.CodePermissionDenied, err)
	}
	src, ok := s.o.Source()
	if !ok {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("the history of this site is not open"))
	}
	if n, e := src.Identity(); n != node || e != epoch {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("the history of this site was begun anew"))
	}
	return src, nil
}

func (s *Server) records(ctx context.Context, r *connect.Request[RecordsRequest], out *connect.ServerStream[Records]) error {
	src, err := s.source(ctx, r.Msg.Node, r.Msg.Epoch)
	if err != nil {
		return err
	}
	if r.Msg.First == 0 || r.Msg.First > r.Msg.Last {
		return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("no range: %d to %d", r.Msg.First, r.Msg.Last))
	}
	return s.send(ctx, src, r.Msg.First, r.Msg.Last, out.Send)
}

// send reads a range, newest first, and sends it in messages that together
// cover it without a hole.
func (s *Server) send(ctx context.Context, src Source, first, last uint64, send func(*Records) error) error {
	for last >= first && last > 0 {
		if err := s.o.Allow(caller(ctx)); err != nil {
			return connect.NewError(connect.CodePermissionDenied, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		all, err := read(src, first, last)
		if err != nil {
			s.log.Error("history cannot be read", "err", err)
			return connect.NewError(connect.CodeUnavailable, errors.New("the history of this site cannot be read"))
		}
		for _, m := range split(all) {
			if err := send(m); err != nil {
				return err
			}
		}
		if all.First <= first {
			return nil
		}
		last = all.First - 1
	}
	return nil
}

// read reads the newest records of a range. Where something is damaged it
// halves the range until it knows what.
func read(src Source, first, last uint64) (*Records, error) {
	recs, err := src.Records(first, last, true, chunkRecords)
	switch {
	case err == nil && len(recs) < chunkRecords:
		return &Records{First: first, Last: last, Records: recs}, nil
	case err == nil:
		return &Records{First: recs[len(recs)-1].Seq, Last: last, Records: recs}, nil
	case !errors.Is(err, store.ErrDamaged):
		return nil, err
	case first == last:
		return &Records{First: first, Last: last, Damaged: []uint64{first}}, nil
	}
	// No more than a chunk is looked at, so halving ends after a few reads.
	if last-first >= chunkRecords {
		return read(src, last-chunkRecords+1, last)
	}
	middle := first + (last-first)/2
	upper, err := read(src, middle+1, last)
	if err != nil || upper.First > middle+1 {
		return upper, err
	}
	lower, err := read(src, first, middle)
	if err != nil {
		return nil, err
	}
	return &Records{
		First: lower.First, Last: last,
		Records: append(upper.Records, lower.Records...), Damaged: append(upper.Damaged, lower.Damaged...),
	}, nil
}

// split makes messages of bounded size of what was read.
func split(all *Records) []*Records {
	var out []*Records
	m := &Records{Last: all.Last, Damaged: all.Damaged}
	size := 0
	for i := range all.Records {
		r := &all.Records[i]
		m.Records = append(m.Records, *r)
		if size += len(r.Key) + len(r.Value); size < chunkBytes || i == len(all.Records)-1 {
			continue
		}
		m.First = r.Seq
		out = append(out, m)
		m, size = &Records{Last: r.Seq - 1}, 0
	}
	m.First = all.First
	return append(out, m)
}

func (s *Server) tail(ctx context.Context, r *connect.Request[TailRequest], out *connect.ServerStream[TailEvent]) error {
	src, err := s.source(ctx, r.Msg.Node, r.Msg.Epoch)
	if err != nil {
		return err
	}
	_, site := s.o.Self()
	group, ctx := errgroup.WithContext(ctx)
	ticks := make(chan store.Batch)
	group.Go(func() error {
		// What is lost while the dashboard does not read is lost by the store,
		// the oldest first; it comes later, sealed.
		return src.Tail(ctx, site, func(b store.Batch) {
			select {
			case ticks <- b:
			case <-ctx.Done():
			}
		})
	})
	group.Go(func() error { return s.follow(ctx, src, r.Msg.After, ticks, out) })
	return group.Wait()
}

// follow is the only sender of a tail's stream.
func (s *Server) follow(ctx context.Context, src Source, after uint64, ticks <-chan store.Batch, out *connect.ServerStream[TailEvent]) error {
	look := time.NewTicker(lookForSealed)
	defer look.Stop()
	quiet := time.NewTimer(0) // the first one at once: the caller knows that it follows
	defer quiet.Stop()
	send := func(ev TailEvent) error {
		if err := s.o.Allow(caller(ctx)); err != nil {
			return connect.NewError(connect.CodePermissionDenied, err)
		}
		ev.ClockMS = time.Now().UnixMilli()
		quiet.Reset(heartbeat)
		return out.Send(&ev)
	}
	for {
		if head := src.Head(); head > after {
			err := s.send(ctx, src, after+1, head, func(m *Records) error { return send(TailEvent{Records: m}) })
			if err != nil {
				return err
			}
			after = head
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case b := <-ticks:
			tick, err := encodeTick(&b)
			if err != nil {
				return fmt.Errorf("tail: %w", err)
			}
			if err := send(TailEvent{Tick: tick}); err != nil {
				return err
			}
		case <-look.C:
		case <-quiet.C:
			if err := send(TailEvent{}); err != nil {
				return err
			}
		}
	}
}
