package agent

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math"
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
	chunkRecords    = 1024             // records read from the store at once
	chunkBytes      = 1 << 20          // of a message with records; at most a record more
	heartbeat       = 10 * time.Second // of a tail with nothing to send
	lookForSealed   = time.Second
	sealDelay       = 10 * time.Minute // after which an hour is sealed
	catchUpSamples  = 2048             // in one tick
	streamsPerPeer  = 64               // of one connection
	connectionsEach = 8                // of one site
)

// Source is the store that is offered.
type Source interface {
	Identity() (node string, epoch uint64)
	Head() uint64
	Section(from, to uint64, limit, size int) (store.Section, error)
	Series(site string) []store.Series
	Samples(series store.Series, from, to int64) iter.Seq2[store.Sample, error]
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
	for {
		if err := s.o.Allow(caller(ctx)); err != nil {
			return connect.NewError(connect.CodePermissionDenied, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		sec, err := src.Section(first, last, chunkRecords, chunkBytes)
		if err != nil || sec.First < first || sec.First > last {
			s.log.Error("history cannot be read", "err", err)
			return connect.NewError(connect.CodeUnavailable, errors.New("the history of this site cannot be read"))
		}
		if err := send((*Records)(&sec)); err != nil {
			return err
		}
		if sec.First == first {
			return nil
		}
		last = sec.First - 1
	}
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
	group.Go(func() error {
		f := follower{server: s, src: src, site: site, after: r.Msg.After, out: out, quiet: time.NewTimer(heartbeat)}
		defer f.quiet.Stop()
		if err := f.catchUp(ctx, r.Msg.SinceMS); err != nil {
			return err
		}
		return f.follow(ctx, ticks)
	})
	return group.Wait()
}

// follower is the only sender of a tail's stream.
type follower struct {
	server *Server
	src    Source
	site   string
	after  uint64
	out    *connect.ServerStream[TailEvent]
	quiet  *time.Timer
}

func (f *follower) send(ctx context.Context, ev TailEvent) error {
	if err := f.server.o.Allow(caller(ctx)); err != nil {
		return connect.NewError(connect.CodePermissionDenied, err)
	}
	ev.ClockMS = time.Now().UnixMilli()
	f.quiet.Reset(heartbeat)
	return f.out.Send(&ev)
}

// catchUp sends the samples that are not sealed, from since on. Ticks that are
// appended meanwhile wait for the follower, or come twice.
func (f *follower) catchUp(ctx context.Context, since int64) error {
	now := time.Now()
	// The hour before may not be sealed yet.
	since = max(since, now.Add(-sealDelay).Truncate(time.Hour).UnixMilli())
	for _, series := range f.src.Series(f.site) {
		t := &Tick{Site: f.site, At: now.UnixMilli()}
		for sample, err := range f.src.Samples(series, since, math.MaxInt64) {
			if err != nil {
				continue // sealed, and told as damaged
			}
			t.Samples = append(t.Samples, store.SeriesSample{Series: series, Sample: sample})
			if len(t.Samples) < catchUpSamples {
				continue
			}
			if err := f.send(ctx, TailEvent{Tick: t}); err != nil {
				return err
			}
			t.Samples = t.Samples[:0]
		}
		if len(t.Samples) > 0 {
			if err := f.send(ctx, TailEvent{Tick: t}); err != nil {
				return err
			}
		}
	}
	return f.send(ctx, TailEvent{CaughtUp: true})
}

// follow sends what is sealed and what is appended.
func (f *follower) follow(ctx context.Context, ticks <-chan store.Batch) error {
	look := time.NewTicker(lookForSealed)
	defer look.Stop()
	for {
		if head := f.src.Head(); head > f.after {
			err := f.server.send(ctx, f.src, f.after+1, head, func(m *Records) error { return f.send(ctx, TailEvent{Records: m}) })
			if err != nil {
				return err
			}
			f.after = head
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case b := <-ticks:
			if err := f.send(ctx, TailEvent{Tick: (*Tick)(&b)}); err != nil {
				return err
			}
		case <-look.C:
		case <-f.quiet.C:
			if err := f.send(ctx, TailEvent{}); err != nil {
				return err
			}
		}
	}
}
