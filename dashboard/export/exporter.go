package export

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"patronus/appliance/store"
	"patronus/dashboard/export/queue"
)

// Report notes an event durably; an error makes the exporter offer it again.
type Report func(ctx context.Context, e store.Event) error

// Exporter exports batches to the sinks of its options.
type Exporter struct {
	o      Options
	queue  *queue.Queue
	codec  *codec
	report Report
	log    *slog.Logger
	runs   []*runner
}

// New opens the queue and builds the sinks. It dials nothing. report gets an
// event "export_dropped" for what was lost.
func New(o Options, report Report, log *slog.Logger) (*Exporter, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.ReportEvery = cmp.Or(o.ReportEvery, 10*time.Second)
	c, err := newCodec()
	if err != nil {
		return nil, err
	}
	e := &Exporter{o: o, codec: c, report: report, log: log}
	var names []string
	for i := range o.Sinks {
		s := &o.Sinks[i]
		names = append(names, s.Name)
		engine, err := newEngine(s)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("export: sink %s: %w", s.Name, err), c.close())
		}
		e.runs = append(e.runs, newRunner(s, engine, c, log))
	}
	e.queue, err = queue.Open(o.Dir, queue.Options{Readers: names, MaxBytes: o.MaxBytes, Reserve: o.Reserve})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("export: %w", err), c.close())
	}
	for _, r := range e.runs {
		if r.reader, err = e.queue.Reader(r.sink.Name); err != nil {
			return nil, errors.Join(fmt.Errorf("export: %w", err), e.Close())
		}
	}
	return e, nil
}

// newEngine builds a sink's engine.
func newEngine(s *Sink) (engine, error) {
	switch {
	case s.RemoteWrite != nil:
		return newRemoteWrite(s)
	case s.Influx != nil:
		return newInflux(s)
	case s.Postgres != nil:
		return newPostgres(s)
	default:
		return newSyslog(s)
	}
}

// Put queues a batch for every sink: it is on the disk when Put returns nil.
// Calls that come together share one sync. Putting a batch twice is harmless.
// The batch is borrowed until Put returns.
func (e *Exporter) Put(_ context.Context, b store.Batch) error {
	if len(b.Samples)+len(b.Flows)+len(b.Events) == 0 || len(e.runs) == 0 {
		return nil
	}
	for i := range b.Events {
		if b.Events[i].ID == "" {
			events := make([]store.Event, len(b.Events))
			copy(events, b.Events)
			b.Events = events
			nameEvents(b.Events)
			break
		}
	}
	r, err := e.codec.encode(&b)
	if err != nil {
		return err
	}
	if err := e.queue.Append(r); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

// nameEvents gives events without an id one that is the same whenever the same
// event is put.
func nameEvents(all []store.Event) {
	for i := range all {
		ev := &all[i]
		if ev.ID == "" {
			h := fnv.New64a()
			fmt.Fprintf(h, "%d\x00%s\x00%s\x00%s\x00%s", ev.At, ev.Type, ev.Site, ev.Source, ev.Data)
			ev.ID = fmt.Sprintf("%012x%016x", ev.At, h.Sum64())
		}
	}
}

// Run delivers until ctx ends.
func (e *Exporter) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, r := range e.runs {
		group.Go(func() error { return r.run(ctx) })
	}
	group.Go(func() error { return e.reportLosses(ctx) })
	return group.Wait()
}

// String names the task.
func (e *Exporter) String() string { return "export" }

// Close ends the queue, after Run has ended.
func (e *Exporter) Close() error {
	var errs []error
	for _, r := range e.runs {
		errs = append(errs, r.engine.close())
	}
	return errors.Join(append(errs, e.queue.Close(), e.codec.close())...)
}

// reportLosses says what was lost, from time to time.
func (e *Exporter) reportLosses(ctx context.Context) error {
	tick := time.NewTicker(e.o.ReportEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if err := e.queue.Losses(func(l queue.Loss) bool { return e.reportLoss(ctx, l) }); err != nil {
				e.log.Warn("export: account of losses is not saved", "err", err)
			}
		}
	}
}

// Dropped is the data of an "export_dropped" event.
type Dropped struct {
	queue.Loss
	Message string `json:"message"`
}

// missed is what a sink would have got of a loss.
func (e *Exporter) missed(l queue.Loss) queue.Loss {
	for _, r := range e.runs {
		if r.sink.Name == l.Reader {
			l.Items = r.sink.skips().of(l.Items)
		}
	}
	return l
}

func (e *Exporter) reportLoss(ctx context.Context, l queue.Loss) bool {
	l = e.missed(l)
	if l.Items == (queue.Items{}) && l.Unknown == 0 {
		return true
	}
	d := Dropped{Loss: l, Message: describe(l)}
	data, err := json.Marshal(d)
	if err != nil {
		return false
	}
	ev := store.Event{At: time.Now().UnixMilli(), Type: "export_dropped", Severity: "warning", Source: "export/" + l.Reader, Data: data}
	if err := e.report(ctx, ev); err != nil {
		e.log.Warn("export: a loss could not be reported", "err", err, "why", d.Message)
		return false
	}
	e.log.Warn("not exported", "why", l.Why, "err", d.Message)
	return true
}

var reasons = map[string]string{
	queue.Bound: "the queue was full", queue.Disk: "the disk was full",
	queue.Damaged: "the queue was damaged", queue.Refused: "the engine refused them",
}

// describe is a loss in one sentence.
func describe(l queue.Loss) string {
	at := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
	s := fmt.Sprintf("%s: dropped %d samples, %d flow records and %d events", l.Reader, l.Samples, l.Flows, l.Events)
	if l.Unknown > 0 {
		s += fmt.Sprintf(" and %d unreadable bytes", l.Unknown)
	}
	if l.Records > 0 {
		s += fmt.Sprintf(" from %s to %s", at(l.From), at(l.To))
	}
	return s + ": " + reasons[l.Why]
}
