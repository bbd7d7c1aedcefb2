package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"patronus/dashboard"
	"patronus/netstack"
	"patronus/netstack/path"
)

// edge is a site's edge, if there is such a site.
func (c *Console) edge(site string) (Edge, error) {
	if c.o.Plane.Current().Network.Site(site) == nil {
		return nil, fmt.Errorf("site %s: %w", site, dashboard.ErrNotFound)
	}
	return c.o.Edge(site), nil
}

// failure gives an edge's error the meaning that the dashboard knows. What the
// edge itself refused is told as it is.
func failure(site string, err error) error {
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return err
	case strings.HasSuffix(err.Error(), "not found"), strings.Contains(err.Error(), netstack.ErrUnknownPath.Error()):
		return fmt.Errorf("site %s: %w: %w", site, dashboard.ErrNotFound, err)
	}
	return fmt.Errorf("site %s: %w: %w", site, dashboard.ErrUnreachable, err)
}

// Explain implements dashboard.Sites.
func (c *Console) Explain(ctx context.Context, site string, q dashboard.Question) (json.RawMessage, error) {
	edge, err := c.edge(site)
	if err != nil {
		return nil, err
	}
	x, err := edge.Explain(ctx, netstack.Question{From: q.From, To: q.To, Port: q.Port, Protocol: q.Protocol, DSCP: q.DSCP, At: q.At})
	if err != nil {
		return nil, failure(site, err)
	}
	return json.Marshal(x)
}

// Reevaluate implements dashboard.Sites.
func (c *Console) Reevaluate(ctx context.Context, site, key string) error {
	edge, err := c.edge(site)
	if err != nil {
		return err
	}
	return failure(site, edge.Reevaluate(ctx, key))
}

// TestPath implements dashboard.Sites.
func (c *Console) TestPath(ctx context.Context, id path.ID, o dashboard.TestOptions) (dashboard.TestResult, error) {
	out := dashboard.TestResult{Path: id, At: c.now().UTC()}
	ends, err := path.ParseID(string(id))
	if err != nil {
		return out, fmt.Errorf("path %s: %w", id, dashboard.ErrNotFound)
	}
	edge, err := c.edge(ends.LocalSite)
	if err != nil {
		return out, err
	}
	if o.Throughput {
		return out, fmt.Errorf("a transfer over one path: %w", dashboard.ErrUnavailable)
	}
	t, err := edge.TestPath(ctx, string(id))
	if err != nil {
		return out, failure(ends.LocalSite, err)
	}
	out.Sent, out.Received = t.Sent, t.Received
	if t.Sent > 0 {
		out.LossPct = 100 * float64(t.Sent-t.Received) / float64(t.Sent)
	}
	if t.Received > 0 {
		out.MinMs, out.MedianMs, out.MaxMs = millis(t.Min), millis(t.Median), millis(t.Max)
	}
	return out, nil
}

func millis(d time.Duration) *float64 {
	ms := float64(d) / float64(time.Millisecond)
	return &ms
}

// Capture implements dashboard.Captures.
func (c *Console) Capture(ctx context.Context, o dashboard.CaptureOptions, w io.Writer) error {
	edge, err := c.edge(o.Site)
	if err != nil {
		return err
	}
	_, err = edge.Capture(ctx, netstack.CaptureOptions{
		Point: o.Point, Filter: o.Filter, SnapSize: o.SnapSize, Packets: o.Packets, Bytes: o.Bytes,
		Duration: time.Duration(o.Seconds) * time.Second,
	}, w)
	return failure(o.Site, err)
}
