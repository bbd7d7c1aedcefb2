package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"patronus/netstack/path"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func metrics(n int, latency float64) []Metric {
	list := make([]Metric, n)
	for i := range list {
		site := fmt.Sprintf("s%d", i)
		list[i] = Metric{Site: site, Path: path.NewID(site, "a", "hq", "b"), At: time.Unix(1, 0), Metrics: path.Metrics{Latency: path.Value(latency)}}
	}
	return list
}

func latency(t *testing.T, m *Message) float64 {
	t.Helper()
	var v struct {
		Metrics struct {
			Latency float64 `json:"latency_ms"`
		}
	}
	if err := json.Unmarshal(m.Text, &v); err != nil {
		t.Fatal(err)
	}
	return v.Metrics.Latency
}

func TestSlowSubscriberGetsNewestAndCount(t *testing.T) {
	h := NewHub()
	slow := h.Subscribe(true, Filter{}, nil, 0)
	defer slow.Close()
	for i := range 10 {
		h.Metrics(metrics(5, float64(i)))
	}
	got, dropped := slow.Take(0)
	if len(got) != 5 || dropped != 45 {
		t.Fatalf("%d messages, %d dropped", len(got), dropped)
	}
	for _, m := range got {
		if latency(t, m) != 9 {
			t.Errorf("an old value: %s", m.Text)
		}
	}
	if got, dropped := slow.Take(0); len(got) != 0 || dropped != 0 {
		t.Errorf("again: %d, %d", len(got), dropped)
	}
}

func TestEventsResume(t *testing.T) {
	h := NewHub()
	for i := range 10 {
		if err := h.Publish(Event{Type: "x", At: time.Unix(int64(i), 0)}); err != nil {
			t.Fatal(err)
		}
	}
	for from, want := range map[uint64]int{0: 0, 3: 7, 9: 1, 10: 0, 99: 0} {
		s := h.Subscribe(false, Filter{}, nil, from)
		got, dropped := s.Take(0)
		if len(got) != want || dropped != 0 {
			t.Errorf("from %d: %d messages, %d dropped", from, len(got), dropped)
		}
		for i, m := range got {
			if m.Seq != from+uint64(i)+1 {
				t.Errorf("from %d: message %d has number %d", from, i, m.Seq)
			}
		}
		s.Close()
	}
	// What the hub does not have any more is counted, and so is what the queue
	// does not hold.
	for range ringSize + 5 {
		if err := h.Publish(Event{Type: "y"}); err != nil {
			t.Fatal(err)
		}
	}
	s := h.Subscribe(false, Filter{}, nil, 1)
	defer s.Close()
	got, dropped := s.Take(0)
	if len(got)+int(dropped) != 10+ringSize+5-1 || got[len(got)-1].Seq != h.Seq() {
		t.Errorf("%d messages, %d dropped", len(got), dropped)
	}
	if err := h.Publish(Event{Type: "bad", Fields: map[string]any{"f": func() {}}}); err == nil || h.Seq() != 10+ringSize+5 {
		t.Errorf("what cannot be encoded: %v, number %d", err, h.Seq())
	}
}

func TestFilterAndScope(t *testing.T) {
	h := NewHub()
	s := h.Subscribe(true, Filter{Sites: []string{"s1", "s2"}}, func(m *Message) bool { return m.Site != "s2" }, 0)
	defer s.Close()
	h.Metrics(metrics(4, 1))
	if got, _ := s.Take(0); len(got) != 1 || got[0].Site != "s1" {
		t.Errorf("got %v", got)
	}
	s.Set(Filter{Paths: []string{"s3.a~hq.b"}}, nil)
	if got, _ := s.Take(0); len(got) != 1 || got[0].Site != "s3" {
		t.Errorf("after a change: %v", got)
	}
	h.Forget(func(id path.ID) bool { return id == "s3.a~hq.b" })
	s.Set(Filter{}, nil)
	if got, _ := s.Take(0); len(got) != 3 {
		t.Errorf("after forgetting: %d", len(got))
	}
}

func TestSlowOnesDoNotHoldUpOthers(t *testing.T) {
	h := NewHub()
	for range 200 {
		defer h.Subscribe(true, Filter{}, nil, 0).Close() // nobody reads these
	}
	fast := h.Subscribe(true, Filter{}, nil, 0)
	defer fast.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var reading sync.WaitGroup
	seen := 0
	reading.Go(func() {
		for seen < 100 {
			got, _, err := fast.Next(ctx)
			if err != nil {
				return
			}
			seen += len(got)
		}
	})
	for i := range 100 {
		h.Metrics(metrics(50, float64(i)))
	}
	reading.Wait()
	if seen < 50 {
		t.Errorf("the fast one saw %d", seen)
	}
	h.Close()
	if _, _, err := fast.Next(ctx); err != nil && !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if n := h.Watching(); n != 201 {
		t.Errorf("%d subscriptions", n)
	}
}

func BenchmarkTickTo100(b *testing.B) {
	h := NewHub()
	for range 100 {
		s := h.Subscribe(true, Filter{}, nil, 0)
		defer s.Close()
	}
	tick := metrics(1000, 1)
	b.ReportAllocs()
	for b.Loop() {
		h.Metrics(tick)
	}
}
