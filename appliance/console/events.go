package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"patronus/appliance/store"
	"patronus/dashboard"
)

// Events implements dashboard.Events.
func (c *Console) Events(ctx context.Context, q dashboard.EventQuery) ([]dashboard.Event, string, error) {
	f := store.EventFilter{Type: q.Type, Severity: q.Severity, Site: q.Site, Source: q.Source}
	if q.Acknowledged != nil && !*q.Acknowledged {
		f.Unacked = true
	}
	if !q.From.IsZero() {
		f.From = q.From.UnixMilli()
	}
	if !q.To.IsZero() {
		f.To = q.To.UnixMilli()
	}
	var out []dashboard.Event
	next := q.Cursor
	for read := 0; ; {
		if err := ctx.Err(); err != nil {
			return nil, "", err
		}
		page, after, err := c.o.Store.Events(f, store.Page{After: next, Limit: q.Limit - len(out)})
		if err != nil {
			return nil, "", err
		}
		for i := range page {
			e := eventOf(&page[i])
			if q.Sees != nil && !q.Sees(e.Site) || q.Acknowledged != nil && *q.Acknowledged != e.Acknowledged {
				continue
			}
			out = append(out, e)
		}
		read += len(page)
		next = after
		if next == "" || len(out) >= q.Limit || read >= sift {
			return out, next, nil
		}
	}
}

func eventOf(e *store.Event) dashboard.Event {
	out := dashboard.Event{
		ID: e.ID, At: time.UnixMilli(e.At).UTC(), Type: e.Type, Severity: e.Severity, Site: e.Site, Source: e.Source, Data: e.Data,
	}
	if e.Ack != nil {
		out.Acknowledged, out.AcknowledgedAt, out.AcknowledgedBy = true, time.UnixMilli(e.Ack.At).UTC(), e.Ack.By
	}
	return out
}

// Event implements dashboard.Events.
func (c *Console) Event(ctx context.Context, id string) (dashboard.Event, error) {
	e, err := c.o.Store.Event(id)
	if errors.Is(err, store.ErrNotFound) {
		return dashboard.Event{}, fmt.Errorf("event %s: %w", id, dashboard.ErrNotFound)
	}
	if err != nil {
		return dashboard.Event{}, err
	}
	return eventOf(&e), nil
}

// Acknowledge implements dashboard.Events.
func (c *Console) Acknowledge(ctx context.Context, id, by string, at time.Time) (dashboard.Event, error) {
	err := c.o.Store.Acknowledge(id, by, at.UnixMilli())
	if errors.Is(err, store.ErrNotFound) {
		return dashboard.Event{}, fmt.Errorf("event %s: %w", id, dashboard.ErrNotFound)
	}
	if err != nil {
		return dashboard.Event{}, err
	}
	return c.Event(ctx, id)
}

// fieldsOf are the fields of a live event beside the common ones, as the seed
// names them.
func fieldsOf(e *store.Event) map[string]any {
	fields := map[string]any{}
	if len(e.Data) > 0 {
		// What is not an object has no fields.
		_ = json.Unmarshal(e.Data, &fields)
	}
	fields["id"] = e.ID
	if e.Type == "policy_block" {
		fields["flow"] = map[string]any{
			"src": fields["source_ip"], "dst": fields["dest_ip"], "port": fields["dest_port"], "protocol": fields["protocol"],
		}
		if long, _ := fields["policy"].(string); long != "" {
			fields["policy_id"], fields["policy_name"] = dashboard.PolicyID(long)
		}
		for _, gone := range []string{"source_ip", "dest_ip", "dest_port", "protocol", "policy"} {
			delete(fields, gone)
		}
	}
	return fields
}
