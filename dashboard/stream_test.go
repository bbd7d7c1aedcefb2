package dashboard

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	ws "github.com/fasthttp/websocket"

	"patronus/dashboard/live"
	"patronus/netstack/path"
)

// dial opens a live stream; headers come in pairs.
func (r *rig) dial(target string, headers ...string) (*ws.Conn, int) {
	r.t.Helper()
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	d := ws.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, HandshakeTimeout: 10 * time.Second}
	conn, resp, err := d.DialContext(r.t.Context(), "wss"+strings.TrimPrefix(r.base, "https")+target, h)
	if err != nil {
		if resp == nil {
			r.t.Fatal(err)
		}
		return nil, resp.StatusCode
	}
	r.t.Cleanup(func() { conn.Close() })
	return conn, resp.StatusCode
}

func (r *rig) bearer(user string) []string {
	return []string{"Authorization", "Bearer " + r.tokens[user]}
}

// next reads one message.
func next(t testing.TB, c *ws.Conn) map[string]any {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, text, err := c.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// closed reads until the server closes, and says with which code.
func closed(t testing.TB, c *ws.Conn, within time.Duration) int {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	for {
		_, _, err := c.ReadMessage()
		var e *ws.CloseError
		if errors.As(err, &e) {
			return e.Code
		}
		if err != nil {
			t.Fatalf("not closed in time: %v", err)
		}
	}
}

func tick(n int) []live.Metric {
	list := make([]live.Metric, n)
	for i := range list {
		site := fmt.Sprintf("branch%04d", i+1)
		list[i] = live.Metric{Site: site, Path: path.NewID(site, "wan0", "hq", "wan0"), At: time.Now(), State: "up", Metrics: path.Metrics{Latency: 12.3, Jitter: 2.1, Score: 98}}
	}
	return list
}

func TestStreamMetrics(t *testing.T) {
	r := newRig(t, 4)
	c, _ := r.dial("/ws/metrics", r.bearer("viewer")...)
	if m := next(t, c); m["type"] != "hello" || m["epoch"] == "" {
		t.Fatalf("first message: %v", m)
	}
	r.server.Hub().Metrics(tick(3))
	for i := range 3 {
		m := next(t, c)
		metrics, _ := m["metrics"].(map[string]any)
		if m["type"] != "path_metric" || m["path_id"] != fmt.Sprintf("branch%04d.wan0~hq.wan0", i+1) || metrics["latency_ms"] != 12.3 || metrics["score"] != 98.0 || m["timestamp"] == nil {
			t.Errorf("message %d: %v", i, m)
		}
	}
	// One frame for a tick, of one site only.
	if err := c.WriteMessage(ws.TextMessage, []byte(`{"type":"subscribe","sites":["branch0002"],"batch":true}`)); err != nil {
		t.Fatal(err)
	}
	m := next(t, c)
	list, _ := m["messages"].([]any)
	if m["type"] != "batch" || len(list) != 1 || list[0].(map[string]any)["site_id"] != "branch0002" {
		t.Errorf("batch: %v", m)
	}
	// A user of some sites gets no others: branch0002 alone is in eu.
	s, _ := r.dial("/ws/metrics?batch=true", r.bearer("scoped")...)
	next(t, s)
	if m := next(t, s); len(m["messages"].([]any)) != 1 || !strings.Contains(fmt.Sprint(m), "branch0002") {
		t.Errorf("scoped: %v", m)
	}
}

func TestStreamEventsAndResume(t *testing.T) {
	r := newRig(t, 3)
	hub := r.server.Hub()
	publish := func(reason string) {
		t.Helper()
		err := hub.Publish(live.Event{
			Type: "path_status_change", At: time.Now(), Severity: "warning", Site: "branch0001", Path: "branch0001.wan0~hq.wan0",
			Fields: map[string]any{"old_status": "Up", "new_status": "Degraded", "reason": reason},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	c, _ := r.dial("/ws/events", r.bearer("viewer")...)
	hello := next(t, c)
	publish("first")
	m := next(t, c)
	if m["type"] != "path_status_change" || m["old_status"] != "Up" || m["new_status"] != "Degraded" || m["reason"] != "first" || m["path_id"] == nil || m["seq"] != 1.0 {
		t.Fatalf("event: %v", m)
	}
	c.Close()
	publish("while away")
	publish("while away too")
	again, _ := r.dial(fmt.Sprintf("/ws/events?from=1&epoch=%v", hello["epoch"]), r.bearer("viewer")...)
	next(t, again)
	if a, b := next(t, again), next(t, again); a["reason"] != "while away" || b["seq"] != 3.0 {
		t.Errorf("after coming back: %v %v", a, b)
	}
	// Numbers of another epoch mean nothing.
	fresh, _ := r.dial("/ws/events?from=1&epoch=other", r.bearer("viewer")...)
	next(t, fresh)
	publish("new")
	if m := next(t, fresh); m["reason"] != "new" {
		t.Errorf("with another epoch: %v", m)
	}
	// A change of the configuration is an event.
	r.want(202, "POST", "/api/v1/policies", "admin", PolicyBody{Spec: strings.Replace(webPolicy, "name: web", "name: live", 1)})
	if m := next(t, fresh); m["type"] != "configuration_change" || m["revision"] != 2.0 || m["resource_id"] != "shop~live" {
		t.Errorf("configuration change: %v", m)
	}
}

func TestS15LiveStreams(t *testing.T) {
	r := newRig(t, 3)
	cookie, _ := r.cookie("viewer")
	own := r.base
	for _, c := range []struct {
		name    string
		target  string
		headers []string
		want    int
	}{
		{"nobody", "/ws/events", nil, 401},
		{"own page", "/ws/events", []string{"Cookie", cookie, "Origin", own}, 101},
		{"foreign page", "/ws/events", []string{"Cookie", cookie, "Origin", "https://evil.example"}, 403},
		{"sandboxed frame", "/ws/events", []string{"Cookie", cookie, "Origin", "null"}, 403},
		{"cookie without origin", "/ws/events", []string{"Cookie", cookie}, 403},
		{"token in the URL", "/ws/events?token=" + r.tokens["viewer"], []string{"Cookie", cookie, "Origin", own}, 400},
		{"program", "/ws/events", r.bearer("viewer"), 101},
	} {
		conn, got := r.dial(c.target, c.headers...)
		if got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
		if conn != nil {
			conn.Close()
		}
	}
	r.want(426, "GET", "/ws/events", "viewer", nil) // no upgrade

	// The stream ends with the session, within a second.
	c, _ := r.dial("/ws/metrics", r.bearer("operator")...)
	next(t, c)
	began := time.Now()
	r.want(204, "POST", "/api/v1/auth/logout", "operator", nil)
	if code := closed(t, c, 5*time.Second); code != closeSessionEnded {
		t.Errorf("after logout: closed with %d", code)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("closed after %v", took)
	}
	// And so do too many, too large and senseless messages.
	for name, send := range map[string]func(*ws.Conn) error{
		"a flood": func(c *ws.Conn) error {
			for range 200 {
				if err := c.WriteMessage(ws.TextMessage, []byte(`{"type":"subscribe"}`)); err != nil {
					return nil // closed already
				}
			}
			return nil
		},
		"100 KiB": func(c *ws.Conn) error {
			_ = c.WriteMessage(ws.TextMessage, make([]byte, 100<<10)) // may be cut off
			return nil
		},
		"no request": func(c *ws.Conn) error { return c.WriteMessage(ws.TextMessage, []byte(`{"type":"shutdown"}`)) },
		"binary":     func(c *ws.Conn) error { return c.WriteMessage(ws.BinaryMessage, []byte{1}) },
	} {
		c, _ := r.dial("/ws/metrics", r.bearer("viewer")...)
		next(t, c)
		if err := send(c); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for {
			if _, _, err := c.ReadMessage(); err != nil {
				if strings.Contains(err.Error(), "timeout") {
					t.Errorf("%s: not closed", name)
				}
				break
			}
		}
	}
	// One user has so many streams, and others have their own.
	for i := range maxStreams {
		if _, got := r.dial("/ws/metrics", r.bearer("admin")...); got != 101 {
			t.Fatalf("stream %d: %d", i+1, got)
		}
	}
	if _, got := r.dial("/ws/metrics", r.bearer("admin")...); got != 429 {
		t.Errorf("one stream more: %d", got)
	}
}

func TestStreamBudget(t *testing.T) {
	r := newRig(t, 2, func(o *Options) { o.MessagesPerSecond = 10 })
	c, _ := r.dial("/ws/metrics", r.bearer("viewer")...)
	next(t, c)
	// 40 paths in one tick are more than ten messages a second carry; what is
	// sent later is the newest, and what was replaced is counted.
	for range 5 {
		r.server.Hub().Metrics(tick(40))
	}
	seen, dropped := 0, 0.0
	began := time.Now()
	for seen < 25 {
		m := next(t, c)
		switch m["type"] {
		case "path_metric":
			seen++
		case "dropped":
			dropped += m["count"].(float64)
		}
	}
	if took := time.Since(began); took < 500*time.Millisecond {
		t.Errorf("25 messages came in %v", took)
	}
	if dropped == 0 {
		t.Error("nothing was counted as dropped")
	}
}
