package console

import (
	"context"
	"time"

	"patronus/appliance/store"
	"patronus/dashboard/live"
	"patronus/netstack/path"
)

// publish passes on what the store gets.
func (c *Console) publish(ctx context.Context) error {
	return c.o.Store.Tail(ctx, "", func(b store.Batch) {
		if tick := metricsOf(&b); len(tick) > 0 {
			c.o.Hub.Metrics(tick)
		}
		for i := range b.Events {
			e := &b.Events[i]
			c.countBlock(e)
			id := path.ID("")
			if e.Type == "path_status_change" {
				id = path.ID(e.Source)
			}
			err := c.o.Hub.Publish(live.Event{
				Type: e.Type, At: time.UnixMilli(e.At).UTC(), Severity: e.Severity, Site: e.Site, Path: id, Fields: fieldsOf(e),
			})
			if err != nil {
				c.log.Warn("an event cannot be published", "site", e.Site, "err", err)
			}
		}
	})
}

func metricsOf(b *store.Batch) []live.Metric {
	tick := make([]live.Metric, len(b.Samples))
	for i := range b.Samples {
		s := &b.Samples[i]
		tick[i] = live.Metric{Site: s.Site, Path: s.Path, At: time.UnixMilli(s.At).UTC(), Metrics: s.Metrics(), State: s.State().String()}
	}
	return tick
}
