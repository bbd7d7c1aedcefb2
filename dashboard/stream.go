package dashboard

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	ws "github.com/fasthttp/websocket"
	"github.com/gofiber/contrib/websocket"
	"golang.org/x/time/rate"

	"patronus/dashboard/auth"
	"patronus/dashboard/live"
)

const (
	maxClientMessage = 64 << 10
	maxStreams       = 10 // of one user
	writeWait        = 10 * time.Second
	pingEvery        = 20 * time.Second
	pongWait         = 45 * time.Second
	renewEvery       = time.Second / 2

	closeSessionEnded = 4401 // of the range that RFC 6455, 7.4.2 leaves to applications
	closeTooMuch      = 4429
)

func liveRoutes() []Route {
	query := []Param{
		{"batch", "boolean", "one frame for a whole tick instead of single messages"},
		{"from", "integer", "of events: the number of the last one that was seen"},
		{"epoch", "string", "the epoch that the number belongs to"},
	}
	return []Route{
		{
			Method: http.MethodGet, Path: "/ws/metrics", Name: "streamMetrics", Access: needs(auth.ViewMetrics), Status: 101,
			Doc: "WebSocket: the newest metrics of paths as they come.", Query: query[:1], handle: func(s *Server, r *request) error { return s.stream(r, true) },
		},
		{
			Method: http.MethodGet, Path: "/ws/events", Name: "streamEvents", Access: needs(auth.ViewEvents), Status: 101,
			Doc: "WebSocket: events as they happen.", Query: query, handle: func(s *Server, r *request) error { return s.stream(r, false) },
		},
	}
}

// subscribeMessage is what a client may send at any time: what it wants.
type subscribeMessage struct {
	Type string `json:"type"` // subscribe
	live.Filter
	Batch *bool `json:"batch,omitempty"`
}

// helloMessage is the first message of a stream.
type helloMessage struct {
	Type  string    `json:"type"` // hello
	At    time.Time `json:"timestamp"`
	Epoch string    `json:"epoch"`
	Seq   uint64    `json:"seq"`
}

// stream upgrades to a WebSocket. The session has been checked, and so has the
// page that asks.
func (s *Server) stream(r *request, metrics bool) error {
	batch, err := r.flag("batch")
	if err != nil {
		return err
	}
	var from uint64
	if text := r.Query("from"); text != "" {
		if from, err = strconv.ParseUint(text, 10, 64); err != nil {
			return invalid("from", "is not the number of a message")
		}
		if epoch := r.Query("epoch"); epoch != s.hub.Epoch() {
			from = 0 // numbers of another start: begin anew
		}
	}
	if r.Context().QueryArgs().Has("token") || r.Context().QueryArgs().Has("access_token") {
		return problem(http.StatusBadRequest, "token", "tokens do not belong in a URL, which logs keep: send a header or the session's cookie")
	}
	if !s.streams.add(r.actor.User) {
		return problem(http.StatusTooManyRequests, "streams", fmt.Sprintf("more than %d live streams of one user", maxStreams))
	}
	actor := r.actor
	err = websocket.New(func(c *websocket.Conn) {
		defer s.streams.remove(actor.User)
		s.runStream(&stream{server: s, conn: c.Conn, actor: actor, metrics: metrics, batch: batch, from: from})
	}, websocket.Config{WriteBufferSize: 4096, ReadBufferSize: 1024, RecoverHandler: s.recoverStream})(r.Ctx)
	if err != nil {
		s.streams.remove(actor.User)
	}
	return err
}

func (s *Server) recoverStream(*websocket.Conn) {
	if p := recover(); p != nil {
		s.log.Error("live stream panicked", "err", fmt.Sprint(p))
	}
}

// stream is one connection. Its handler's goroutine is the only writer; a
// second one reads.
type stream struct {
	server  *Server
	conn    *ws.Conn
	actor   auth.Actor
	metrics bool
	batch   bool
	from    uint64
	sub     *live.Subscription

	deadline sync.Mutex // held while the reader's deadline is set
	stopped  bool
}

func (t *stream) kind() string {
	if t.metrics {
		return "metrics"
	}
	return "events"
}

// sees says what the stream's user may see now.
func (t *stream) sees() func(*live.Message) bool {
	if t.actor.Everywhere() {
		return nil
	}
	scope, network := t.actor.Scope, t.server.o.Plane.Current().Network
	seen := make(map[string]bool, len(network.Sites))
	for i := range network.Sites {
		seen[network.Sites[i].Name] = scope.Sees(network.Sites[i].Labels)
	}
	return func(m *live.Message) bool { return seen[m.Site] }
}

func (s *Server) runStream(t *stream) {
	s.meter.streams.WithLabelValues(t.kind()).Inc()
	defer s.meter.streams.WithLabelValues(t.kind()).Dec()
	t.sub = s.hub.Subscribe(t.metrics, live.Filter{}, t.sees(), t.from)
	defer t.sub.Close()
	asked := make(chan subscribeMessage)
	over := make(chan error, 1)
	stop := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() { over <- t.read(asked, stop) })
	code, why := t.write(asked, over)
	close(stop)
	// The other side may be gone; then there is nobody to tell.
	_ = t.conn.WriteControl(ws.CloseMessage, ws.FormatCloseMessage(code, why), time.Now().Add(time.Second))
	t.stopReading()
	reading.Wait() // the connection closes when this returns, not before
}

// stopReading wakes the reader for good. Closing would not: the server closes
// a connection that was taken over only when its handler has returned.
func (t *stream) stopReading() {
	t.deadline.Lock()
	defer t.deadline.Unlock()
	t.stopped = true
	_ = t.conn.SetReadDeadline(time.Unix(1, 0)) // fails on a dead connection, which wakes too
}

// alive gives the other side until the next pong.
func (t *stream) alive(string) error {
	t.deadline.Lock()
	defer t.deadline.Unlock()
	if t.stopped {
		return net.ErrClosed
	}
	return t.conn.SetReadDeadline(time.Now().Add(pongWait))
}

// errTooMuch ends a stream whose client sends too many messages.
var errTooMuch = errors.New("too many messages")

// read passes on what the client asks for, until the connection ends.
func (t *stream) read(asked chan<- subscribeMessage, stop <-chan struct{}) error {
	t.conn.SetReadLimit(maxClientMessage)
	limit := rate.NewLimiter(rate.Limit(t.server.o.MessagesPerSecond), t.server.o.MessagesPerSecond)
	t.conn.SetPongHandler(t.alive)
	if err := t.alive(""); err != nil {
		return err
	}
	for {
		kind, text, err := t.conn.ReadMessage()
		if err != nil {
			return err
		}
		t.server.meter.messages.WithLabelValues(t.kind(), "inbound").Inc()
		if !limit.Allow() {
			return errTooMuch
		}
		m, err := parseSubscribe(kind, text)
		if err != nil {
			return err
		}
		select {
		case asked <- m:
		case <-stop:
			return nil
		}
	}
}

// errMessage ends a stream whose client sends what is no request.
var errMessage = errors.New("not a subscribe message")

// parseSubscribe reads a client's message.
func parseSubscribe(kind int, text []byte) (m subscribeMessage, err error) {
	if kind != ws.TextMessage || decode(text, &m) != nil || m.Type != "subscribe" {
		return m, errMessage
	}
	for _, list := range [][]string{m.Sites, m.Paths, m.Types, m.Severities} {
		if len(list) > 2000 {
			return m, errMessage
		}
	}
	return m, nil
}

// write sends until the connection, the session or the hub ends, and says how.
func (t *stream) write(asked <-chan subscribeMessage, over <-chan error) (code int, why string) {
	s := t.server
	hello, err := json.Marshal(helloMessage{"hello", s.now().UTC(), s.hub.Epoch(), s.hub.Seq()})
	if err != nil || t.send(hello) != nil {
		return ws.CloseGoingAway, ""
	}
	limit := rate.NewLimiter(rate.Limit(s.o.MessagesPerSecond), s.o.MessagesPerSecond)
	ping, renew := time.NewTicker(pingEvery), time.NewTicker(renewEvery)
	defer ping.Stop()
	defer renew.Stop()
	var filter live.Filter
	revision := s.o.Plane.Current().Revision.Number // that the scope was looked up in
	var later <-chan time.Time                      // set while the budget is spent
	for {
		wake := t.sub.Wake()
		if later != nil {
			wake = nil
		}
		select {
		case <-t.sub.Done():
			return ws.CloseGoingAway, "the dashboard stops"
		case err := <-over:
			return closing(err)
		case m := <-asked:
			filter = m.Filter
			if m.Batch != nil {
				t.batch = *m.Batch
			}
			t.sub.Set(filter, t.sees())
		case <-renew.C:
			fresh, err := s.o.Directory.Renew(t.actor)
			if err != nil || !fresh.May(t.permission()) {
				return closeSessionEnded, "the session has ended"
			}
			now := s.o.Plane.Current().Revision.Number
			if !maps.Equal(fresh.Scope, t.actor.Scope) || now != revision && !fresh.Everywhere() {
				t.actor, revision = fresh, now
				t.sub.Set(filter, t.sees())
			}
		case <-ping.C:
			if t.conn.WriteControl(ws.PingMessage, nil, time.Now().Add(writeWait)) != nil {
				return ws.CloseGoingAway, ""
			}
		case <-wake:
			if later, err = t.forward(limit); err != nil {
				return ws.CloseGoingAway, ""
			}
		case <-later:
			if later, err = t.forward(limit); err != nil {
				return ws.CloseGoingAway, ""
			}
		}
	}
}

func (t *stream) permission() auth.Permission {
	if t.metrics {
		return auth.ViewMetrics
	}
	return auth.ViewEvents
}

func closing(err error) (code int, why string) {
	switch {
	case errors.Is(err, errTooMuch):
		return closeTooMuch, err.Error()
	case errors.Is(err, errMessage):
		return ws.ClosePolicyViolation, err.Error()
	case errors.Is(err, ws.ErrReadLimit):
		return ws.CloseMessageTooBig, "at most 64 KiB"
	}
	return ws.CloseNormalClosure, ""
}

// forward sends what waits, as far as the budget of messages goes; the channel
// says when to go on.
func (t *stream) forward(limit *rate.Limiter) (<-chan time.Time, error) {
	budget := int(limit.Tokens())
	if budget < 1 {
		return time.After(time.Second / time.Duration(t.server.o.MessagesPerSecond)), nil
	}
	most := budget
	if t.batch {
		most = 0
	}
	messages, dropped := t.sub.Take(most)
	if len(messages) == 0 && dropped == 0 {
		return nil, nil
	}
	if t.batch {
		limit.Allow()
		return nil, t.send(batchFrame(messages, dropped, t.server.now()))
	}
	if dropped > 0 {
		limit.Allow()
		text := append(strconv.AppendUint([]byte(`{"type":"dropped","count":`), dropped, 10), '}')
		if err := t.send(text); err != nil {
			return nil, err
		}
	}
	for _, m := range messages {
		limit.Allow()
		if err := t.send(m.Text); err != nil {
			return nil, err
		}
	}
	if limit.Tokens() < 1 {
		return time.After(time.Second / time.Duration(t.server.o.MessagesPerSecond)), nil
	}
	return nil, nil
}

// batchFrame puts messages that are encoded already into one frame.
func batchFrame(messages []*live.Message, dropped uint64, now time.Time) []byte {
	size := 96
	for _, m := range messages {
		size += len(m.Text) + 1
	}
	b := append(make([]byte, 0, size), `{"type":"batch","timestamp":"`...)
	b = now.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","dropped":`...)
	b = strconv.AppendUint(b, dropped, 10)
	b = append(b, `,"messages":[`...)
	for i, m := range messages {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, m.Text...)
	}
	return append(b, "]}"...)
}

func (t *stream) send(text []byte) error {
	if err := t.conn.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
		return err
	}
	if err := t.conn.WriteMessage(ws.TextMessage, text); err != nil {
		return err
	}
	t.server.meter.messages.WithLabelValues(t.kind(), "outbound").Inc()
	return nil
}

// streamCount counts the streams of each user.
type streamCount struct {
	mu sync.Mutex
	of map[string]int
}

func (c *streamCount) add(user string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of[user] >= maxStreams {
		return false
	}
	if c.of == nil {
		c.of = map[string]int{}
	}
	c.of[user]++
	return true
}

func (c *streamCount) remove(user string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of[user]--; c.of[user] <= 0 {
		delete(c.of, user)
	}
}
