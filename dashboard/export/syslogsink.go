package export

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"patronus/appliance/store"
	"patronus/dashboard/export/outbound"
	"patronus/dashboard/export/queue"
	"patronus/dashboard/export/syslog"
)

// syslogSink sends events as syslog messages.
type syslogSink struct {
	w        *syslog.Writer
	facility syslog.Facility
	element  string
}

func newSyslog(s *Sink) (*syslogSink, error) {
	o := s.Syslog
	w, err := syslog.NewWriter(syslog.Options{Network: o.Network, Addr: o.Addr, Guard: outbound.Guard{Private: s.Private}, TLS: s.TLS})
	if err != nil {
		return nil, err
	}
	return &syslogSink{
		w: w, facility: cmp.Or(o.Facility, syslog.Local0),
		element: fmt.Sprintf("patronus@%d", cmp.Or(o.Enterprise, 32473)),
	}, nil
}

func (s *syslogSink) close() error { return s.w.Close() }

func (s *syslogSink) send(ctx context.Context, batches []store.Batch) (queue.Items, error) {
	var all []syslog.Message
	for i := range batches {
		for j := range batches[i].Events {
			all = append(all, s.message(&batches[i].Events[j]))
		}
	}
	return queue.Items{}, s.w.Send(ctx, all)
}

// maxParams bounds the structured data of a message; the text has it all.
const maxParams = 24

// message is an event: its type is the MSGID, its site the host, and what its
// data holds of texts, numbers and truths the structured data.
func (s *syslogSink) message(e *store.Event) syslog.Message {
	params := []syslog.Param{{Name: "id", Value: e.ID}}
	add := func(name, value string) {
		if value != "" && len(params) < maxParams {
			params = append(params, syslog.Param{Name: name, Value: value})
		}
	}
	add("site", e.Site)
	add("source_id", e.Source)
	add("severity", e.Severity)
	var data map[string]any
	d := json.NewDecoder(bytes.NewReader(e.Data))
	d.UseNumber()
	if d.Decode(&data) == nil {
		for _, name := range slices.Sorted(maps.Keys(data)) {
			switch v := data[name].(type) {
			case string:
				add(name, v)
			case json.Number, bool:
				add(name, fmt.Sprint(v))
			}
		}
	}
	text := e.Type
	if e.Source != "" {
		text += " " + e.Source
	}
	if len(e.Data) > 0 {
		text += ": " + string(e.Data)
	}
	return syslog.Message{
		Facility: s.facility, Severity: severity(e.Severity), At: time.UnixMilli(e.At), Host: e.Site, App: "patronus", ID: e.Type,
		Data: []syslog.Element{{ID: s.element, Params: params}}, Text: text,
	}
}

// severity maps the API's severities.
func severity(s string) syslog.Severity {
	switch s {
	case "critical":
		return syslog.Critical
	case "error":
		return syslog.Error
	case "warning":
		return syslog.Warning
	default:
		return syslog.Informational
	}
}
