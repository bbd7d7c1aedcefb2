package export

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/exp/api/remote"
	writev2 "github.com/prometheus/client_golang/exp/api/remote/genproto/v2"
)

// official is Prometheus' own receiver of remote write 2.0, with its own
// decoder of the messages.
type official struct {
	t    *testing.T
	got  []string // labels, then time=value, as parsed in this package's tests
	kind []remote.WriteMessageType
}

func (o *official) Store(req *http.Request, kind remote.WriteMessageType) (*remote.WriteResponse, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	o.kind = append(o.kind, kind)
	out := remote.NewWriteResponse()
	if kind != remote.WriteV2MessageType {
		o.got = parsed(o.t, body, false)
		return out, nil
	}
	var m writev2.Request
	if err := m.UnmarshalVT(body); err != nil {
		return nil, err
	}
	o.got = nil
	n := 0
	for _, ts := range m.Timeseries {
		line := strings.Join(writev2.DesymbolizeLabels(ts.LabelsRefs, m.Symbols, nil), " ")
		for _, s := range ts.Samples {
			n++
			line += fmt.Sprintf(" %d=%v", s.Timestamp, s.Value)
		}
		if ts.Metadata.Type != writev2.Metadata_METRIC_TYPE_GAUGE || m.Symbols[ts.Metadata.HelpRef] == "" || m.Symbols[ts.Metadata.UnitRef] != "" {
			o.t.Errorf("metadata %v", ts.Metadata)
		}
		o.got = append(o.got, line)
	}
	out.Add(remote.WriteResponseStats{Samples: n})
	return out, nil
}

// Prometheus' own receiver of 2.0 understands what we send; one that takes 1.0
// only is spoken to in 1.0.
func TestOfficialReceiver(t *testing.T) {
	want := parsed(t, encode1(gather(someBatches())), false)
	for _, accepts := range []remote.MessageTypes{
		{remote.WriteV2MessageType, remote.WriteV1MessageType},
		{remote.WriteV1MessageType},
	} {
		o := &official{t: t}
		srv := httptest.NewServer(remote.NewWriteHandler(o, accepts))
		w, err := newRemoteWrite(&Sink{Private: true, RemoteWrite: &RemoteWrite{URL: srv.URL}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.send(t.Context(), someBatches()); err != nil {
			t.Errorf("accepting %v: %v", accepts, err)
		}
		if !slices.Equal(o.kind, []remote.WriteMessageType{accepts[0]}) || !slices.Equal(o.got, want) {
			t.Errorf("accepting %v: got %v\n%s\nwant\n%s", accepts, o.kind, strings.Join(o.got, "\n"), strings.Join(want, "\n"))
		}
		if err := w.close(); err != nil {
			t.Error(err)
		}
		srv.Close()
	}
}
