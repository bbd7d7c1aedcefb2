package dashboard

import (
	"container/list"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
)

const (
	replayFor  = 24 * time.Hour
	maxReplays = 2_000
	maxKey     = 128
)

// replays remembers the answers to requests with an Idempotency-Key, so that a
// request that is sent again is not carried out again. They are kept in
// memory: after a restart a repeated creation finds the name taken instead.
type replays struct {
	mu    sync.Mutex
	byKey map[string]*list.Element
	used  *list.List // of *replay, newest first
}

type replay struct {
	key     string
	request [sha256.Size]byte
	at      time.Time
	done    bool
	status  int
	headers [][2]string
	body    []byte
}

func newReplays() *replays { return &replays{byKey: map[string]*list.Element{}, used: list.New()} }

// begin finds the answer of a request that was carried out, or notes that it is
// about to be (nil, nil).
func (m *replays) begin(key string, request [sha256.Size]byte, now time.Time) (*replay, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.byKey[key]; e != nil {
		switch p := e.Value.(*replay); {
		case p.done && now.Sub(p.at) >= replayFor:
			delete(m.byKey, m.used.Remove(e).(*replay).key)
		case p.request != request:
			return nil, problem(http.StatusUnprocessableEntity, "idempotency", "this Idempotency-Key was used for another request")
		case !p.done:
			return nil, problem(http.StatusConflict, "idempotency", "the request with this Idempotency-Key is being carried out")
		default:
			return p, nil
		}
	}
	m.byKey[key] = m.used.PushFront(&replay{key: key, request: request, at: now})
	for e := m.used.Back(); m.used.Len() > maxReplays && e != nil; {
		before := e.Prev()
		if e.Value.(*replay).done {
			delete(m.byKey, m.used.Remove(e).(*replay).key)
		}
		e = before
	}
	return nil, nil
}

// end keeps an answer; one that a later try may improve on is not kept.
func (m *replays) end(key string, keep bool, status int, headers [][2]string, body []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.byKey[key]
	if e == nil {
		return
	}
	if !keep {
		delete(m.byKey, m.used.Remove(e).(*replay).key)
		return
	}
	p := e.Value.(*replay)
	p.done, p.status, p.headers, p.body = true, status, headers, body
}

// once carries a request out, or answers as it was answered before.
func (s *Server) once(r *request, handle func() error) error {
	key := r.Get("Idempotency-Key")
	if key == "" {
		return handle()
	}
	if len(key) > maxKey {
		return invalid("Idempotency-Key", "is too long")
	}
	key = r.actor.User + "\x00" + key
	sum := sha256.New()
	for _, part := range [][]byte{[]byte(r.Method()), r.Request().RequestURI(), r.Body()} {
		sum.Write(part)
		sum.Write([]byte{0})
	}
	before, err := s.replays.begin(key, [sha256.Size]byte(sum.Sum(nil)), r.now)
	if err != nil {
		return err
	}
	if before != nil {
		for _, h := range before.headers {
			r.Set(h[0], h[1])
		}
		r.Set("Idempotent-Replayed", "true")
		return r.text(before.status, before.body)
	}
	kept := false
	defer func() {
		if !kept { // it failed, or panicked
			s.replays.end(key, false, 0, nil, nil)
		}
	}()
	if err := handle(); err != nil {
		return err
	}
	var headers [][2]string
	for _, name := range []string{fiber.HeaderLocation, fiber.HeaderETag} {
		if v := string(r.Response().Header.Peek(name)); v != "" {
			headers = append(headers, [2]string{name, v})
		}
	}
	kept = true
	s.replays.end(key, true, r.Response().StatusCode(), headers, append([]byte(nil), r.Response().Body()...))
	return nil
}
