package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"

	"patronus/appliance/store"
	"patronus/dashboard/export/queue"
	"patronus/netstack/path"
)

// influx sends the line protocol. Samples, flows and events are measurements of
// their own; fields have the API's names.
type influx struct {
	o      *Influx
	client *http.Client
	to     string
	lines  []byte
}

func newInflux(s *Sink) (*influx, error) {
	c, err := httpClient(s)
	if err != nil {
		return nil, err
	}
	o := s.Influx
	q := url.Values{"precision": {"ns"}}
	to := strings.TrimSuffix(o.URL, "/")
	if o.Bucket != "" {
		q.Set("org", o.Org)
		q.Set("bucket", o.Bucket)
		to += "/api/v2/write?"
	} else {
		q.Set("db", o.Database)
		if o.RetentionPolicy != "" {
			q.Set("rp", o.RetentionPolicy)
		}
		to += "/write?"
	}
	return &influx{o: o, client: c, to: to + q.Encode()}, nil
}

func (w *influx) close() error {
	w.client.CloseIdleConnections()
	return nil
}

func (w *influx) send(ctx context.Context, batches []store.Batch) (queue.Items, error) {
	w.lines = w.lines[:0]
	for i := range batches {
		w.lines = appendLines(w.lines, &batches[i])
	}
	if len(w.lines) == 0 {
		return queue.Items{}, nil
	}
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	_, err := z.Write(w.lines)
	if err := errors.Join(err, z.Close()); err != nil {
		return queue.Items{}, fmt.Errorf("gzip: %w", err)
	}
	if cap(w.lines) > 8<<20 {
		w.lines = nil
	}
	h := http.Header{}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Encoding", "gzip")
	h.Set("User-Agent", userAgent)
	password, err1 := w.o.Password.Read()
	token, err2 := w.o.Token.Read()
	if err := errors.Join(err1, err2); err != nil {
		return queue.Items{}, err
	}
	switch {
	case token != "":
		h.Set("Authorization", "Token "+token)
	case w.o.User != "":
		h.Set("Authorization", basic(w.o.User, password))
	}
	status, header, text, err := post(ctx, w.client, w.to, h, body.Bytes())
	if err != nil {
		return queue.Items{}, err
	}
	if n, ok := partial(status, text); ok {
		// Points of any kind: which, the server does not say.
		return queue.Items{Samples: n}, nil
	}
	return queue.Items{}, judge(status, header, text)
}

var partialWrite = regexp.MustCompile(`partial write: .*dropped=(\d+)`)

// partial reads an answer that says that all but some points were written.
func partial(status int, text string) (dropped uint64, ok bool) {
	m := partialWrite.FindStringSubmatch(text)
	if status != http.StatusBadRequest || m == nil {
		return 0, false
	}
	n, err := strconv.ParseUint(m[1], 10, 64)
	return n, err == nil
}

// appendLines adds the lines of a batch.
func appendLines(b []byte, batch *store.Batch) []byte {
	for i := range batch.Samples {
		b = appendSample(b, &batch.Samples[i])
	}
	for i := range batch.Flows {
		b = appendFlow(b, &batch.Flows[i])
	}
	for i := range batch.Events {
		b = appendEvent(b, &batch.Events[i])
	}
	return b
}

func appendSample(b []byte, s *store.SeriesSample) []byte {
	start := len(b)
	b = append(b, "patronus_path"...)
	b = appendTag(b, "site", s.Site)
	b = appendTag(b, "path", string(s.Path))
	if ends, err := path.ParseID(string(s.Path)); err == nil {
		b = appendTag(b, "uplink", ends.LocalUplink)
		b = appendTag(b, "remote_site", ends.RemoteSite)
		b = appendTag(b, "remote_uplink", ends.RemoteUplink)
	}
	sep := byte(' ')
	for m, v := range s.V {
		if v == store.Missing {
			continue
		}
		metric := store.Metric(m)
		b = append(b, sep)
		b = append(b, metric.Name()...)
		b = append(b, '=')
		b = strconv.AppendFloat(b, float64(v)/float64(int64(1/metric.Scale()+0.5)), 'g', -1, 64)
		sep = ','
	}
	if sep == ' ' { // nothing was measured: no line
		return b[:start]
	}
	return appendTime(b, s.At, "")
}

func appendFlow(b []byte, f *store.FlowRecord) []byte {
	b = append(b, "patronus_flow"...)
	b = appendTag(b, "site", f.Site)
	b = appendTag(b, "path", string(f.Path))
	b = appendTag(b, "class", f.Class)
	b = appendTag(b, "policy", f.Policy)
	b = appendTag(b, "protocol", f.Protocol)
	b = appendTag(b, "status", f.Status)
	b = appendTag(b, "change", f.Change)
	b = append(b, " flow_key="...)
	b = appendQuoted(b, f.ID)
	b = append(b, ",src="...)
	b = appendQuoted(b, f.Src.String())
	b = append(b, ",dst="...)
	b = appendQuoted(b, f.Dst.String())
	for _, n := range []struct {
		name  string
		value uint64
	}{
		{"src_port", uint64(f.SrcPort)},
		{"dst_port", uint64(f.DstPort)},
		{"forward_packets", f.Forward.Packets},
		{"forward_bytes", f.Forward.Bytes},
		{"reverse_packets", f.Reverse.Packets},
		{"reverse_bytes", f.Reverse.Bytes},
		{"moves", uint64(f.Moves)},
	} {
		b = appendInt(b, n.name, n.value)
	}
	for _, t := range []struct{ name, value string }{{"end", f.End}, {"reason", f.Reason}} {
		if t.value != "" {
			b = append(append(append(b, ','), t.name...), '=')
			b = appendQuoted(b, t.value)
		}
	}
	return appendTime(b, f.At, f.ID)
}

func appendEvent(b []byte, e *store.Event) []byte {
	b = append(b, "patronus_event"...)
	b = appendTag(b, "site", e.Site)
	b = appendTag(b, "event_type", e.Type)
	b = appendTag(b, "severity", e.Severity)
	b = append(b, " id="...)
	b = appendQuoted(b, e.ID)
	b = append(b, ",source_id="...)
	b = appendQuoted(b, e.Source)
	if len(e.Data) > 0 {
		b = append(b, ",data="...)
		b = appendQuoted(b, string(e.Data))
	}
	return appendTime(b, e.At, e.ID)
}

// appendTime ends a line. The engine has one point for a set of tags and a
// time: what is told apart by an id gets a place of its own within the
// millisecond, the same one each time it is sent.
func appendTime(b []byte, ms int64, id string) []byte {
	ns := ms * 1e6
	if id != "" {
		h := fnv.New64a()
		h.Write([]byte(id))
		ns += int64(h.Sum64() % 1e6)
	}
	b = append(b, ' ')
	return append(strconv.AppendInt(b, ns, 10), '\n')
}

// appendTag adds a tag. A value must not be empty, hold a line break or end in
// a backslash, which nothing escapes.
func appendTag(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, ',')
	b = append(b, name...)
	b = append(b, '=')
	for _, r := range strings.ToValidUTF8(value, "\ufffd") {
		switch {
		case r < ' ' || r == 0x7f:
			b = append(b, '?')
		case r == '\\':
			b = append(b, '/')
		case r == ',' || r == '=' || r == ' ':
			b = append(b, '\\', byte(r))
		default:
			b = append(b, string(r)...)
		}
	}
	return b
}

// appendQuoted adds a string field's value.
func appendQuoted(b []byte, value string) []byte {
	b = append(b, '"')
	for _, r := range strings.ToValidUTF8(value, "\ufffd") {
		switch r {
		case '"', '\\':
			b = append(b, '\\', byte(r))
		case '\n', '\r', 0:
			b = append(b, ' ')
		default:
			b = append(b, string(r)...)
		}
	}
	return append(b, '"')
}

// appendInt adds an integer field; the engine's integers are signed.
func appendInt(b []byte, name string, v uint64) []byte {
	b = append(b, ',')
	b = append(b, name...)
	b = append(b, '=')
	b = strconv.AppendInt(b, int64(min(v, 1<<63-1)), 10)
	return append(b, 'i')
}
