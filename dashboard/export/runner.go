package export

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"patronus/appliance/store"
	"patronus/dashboard/export/queue"
)

// engine sends batches to one place. It belongs to one goroutine.
type engine interface {
	// send delivers all batches or returns an error: a *refusal if the engine
	// will never take them, otherwise one that passes. What it has no form for
	// is left out. refused counts items that the engine left out itself.
	send(ctx context.Context, batches []store.Batch) (refused queue.Items, err error)
	close() error
}

// refusal is an engine's answer that sending the same again is useless.
type refusal struct{ err error }

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// later is an error with the engine's own wish of when to come again.
type later struct {
	err   error
	after time.Duration
}

func (l *later) Error() string { return l.err.Error() }
func (l *later) Unwrap() error { return l.err }

const (
	// sendTimeout bounds one delivery.
	sendTimeout = 30 * time.Second
	// batchRecords and batchBytes bound what is delivered at once.
	batchRecords = 500
	batchBytes   = 512 << 10
	// maxLater bounds how long an engine can make us wait.
	maxLater = 10 * time.Minute
)

// runner is the task of one sink.
type runner struct {
	sink   *Sink
	engine engine
	codec  *codec
	reader *queue.Reader
	log    *slog.Logger
	// most is how many records are delivered at once: halved when the engine
	// refuses them, until the one is found that it does not like.
	most int

	mu   sync.Mutex
	seen seen
}

// seen is what the sink's metrics tell.
type seen struct {
	delivered   queue.Items
	attempts    uint64
	failures    uint64
	failing     bool
	why         string // it fails
	lastSuccess time.Time
}

func newRunner(s *Sink, e engine, c *codec, log *slog.Logger) *runner {
	s.Retry.Min = cmp.Or(s.Retry.Min, 500*time.Millisecond)
	s.Retry.Max = max(cmp.Or(s.Retry.Max, time.Minute), s.Retry.Min)
	return &runner{sink: s, engine: e, codec: c, log: log, most: batchRecords}
}

func (r *runner) run(ctx context.Context) error {
	failed := 0
	for {
		b, err := r.reader.Next(ctx, queue.Limit{Records: r.most, Bytes: batchBytes})
		if err == nil {
			err = r.deliver(ctx, b)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, queue.ErrClosed) {
			return err
		}
		if err == nil {
			if failed > 0 {
				r.log.Info("export: sink is taking data again", "to", r.sink.Name)
			}
			failed = 0
			continue
		}
		if failed == 0 {
			r.log.Warn("export: sink takes no data; it is kept and tried again", "to", r.sink.Name, "err", err)
		}
		failed++
		if err := wait(ctx, r.pause(failed, err)); err != nil {
			return err
		}
	}
}

// pause is how long to wait after a number of failures in a row: exponential
// with full jitter, but not less than the engine asked for.
func (r *runner) pause(failed int, err error) time.Duration {
	most := r.sink.Retry.Max
	if failed < 30 {
		most = min(most, r.sink.Retry.Min<<failed)
	}
	d := r.sink.Retry.Min/2 + rand.N(max(most-r.sink.Retry.Min/2, 1))
	var l *later
	if errors.As(err, &l) {
		d = max(d, min(l.after, maxLater))
	}
	return d
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// deliver sends one batch of the queue and settles it.
func (r *runner) deliver(ctx context.Context, b *queue.Batch) error {
	items, unreadable, batches := r.wanted(b)
	var refused queue.Items
	var err error
	if len(batches) > 0 {
		sctx, cancel := context.WithTimeout(ctx, sendTimeout)
		refused, err = r.engine.send(sctx, batches)
		cancel()
		r.note(err)
	}
	var no *refusal
	if errors.As(err, &no) && len(b.Records) > 1 {
		r.reader.Fail(b)
		r.most = (len(b.Records) + 1) / 2
		return nil
	}
	if err != nil && no == nil {
		r.reader.Fail(b)
		return err
	}
	if no != nil {
		r.log.Warn("export: engine refuses a record", "to", r.sink.Name, "err", no.err)
		refused = items
	}
	r.most = min(2*r.most, batchRecords)
	r.mu.Lock()
	r.seen.delivered.Samples += items.Samples - min(refused.Samples, items.Samples)
	r.seen.delivered.Flows += items.Flows - min(refused.Flows, items.Flows)
	r.seen.delivered.Events += items.Events - min(refused.Events, items.Events)
	r.mu.Unlock()
	refused.Samples += unreadable.Samples
	refused.Flows += unreadable.Flows
	refused.Events += unreadable.Events
	if err := r.reader.Refuse(b, refused); err != nil {
		return fmt.Errorf("sink %s: %w", r.sink.Name, err)
	}
	return nil
}

// wanted decodes what the sink wants of a batch.
func (r *runner) wanted(b *queue.Batch) (items, unreadable queue.Items, out []store.Batch) {
	skip := r.sink.skips()
	for i := range b.Records {
		d, err := r.codec.decode(b.Records[i].Payload)
		if err != nil {
			r.log.Warn("export: unreadable record", "err", err)
			unreadable.Samples += b.Records[i].Items.Samples
			unreadable.Flows += b.Records[i].Items.Flows
			unreadable.Events += b.Records[i].Items.Events
			continue
		}
		skip.from(&d)
		if len(d.Samples)+len(d.Flows)+len(d.Events) == 0 {
			continue
		}
		items.Samples += uint64(len(d.Samples))
		items.Flows += uint64(len(d.Flows))
		items.Events += uint64(len(d.Events))
		out = append(out, d)
	}
	return items, unreadable, out
}

// from takes what is skipped out of a batch.
func (s Skip) from(b *store.Batch) {
	if s.Samples {
		b.Samples = nil
	}
	if s.Flows {
		b.Flows = nil
	}
	if s.Events {
		b.Events = nil
	}
}

// of is what is left of a number of items.
func (s Skip) of(i queue.Items) queue.Items {
	if s.Samples {
		i.Samples = 0
	}
	if s.Flows {
		i.Flows = 0
	}
	if s.Events {
		i.Events = 0
	}
	return i
}

// skips is what the sink does not get: what it should not, and what it has no
// form for.
func (s *Sink) skips() Skip {
	skip := s.Skip
	if s.RemoteWrite != nil {
		skip.Flows, skip.Events = true, true
	}
	if s.Syslog != nil {
		skip.Samples, skip.Flows = true, true
	}
	return skip
}

func (r *runner) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen.attempts++
	var no *refusal
	r.seen.failing = err != nil && !errors.As(err, &no)
	r.seen.why = ""
	if err != nil {
		r.seen.failures++
		r.seen.why = err.Error()
		return
	}
	r.seen.lastSuccess = time.Now()
}
