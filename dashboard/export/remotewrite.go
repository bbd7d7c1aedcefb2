package export

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/golang/snappy"

	"patronus/appliance/store"
	"patronus/dashboard/export/queue"
)

const (
	contentType1 = "application/x-protobuf"
	contentType2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
	// writtenHeader is what a receiver of 2.0 answers with. One of 1.0 may take
	// a 2.0 message, find none of its own fields in it, and answer 204: only the
	// missing header tells that it stored nothing.
	writtenHeader = "X-Prometheus-Remote-Write-Samples-Written"
	// askAgain is how long a receiver that knows 1.0 only is not asked for 2.0.
	askAgain = time.Hour
)

// remoteWrite sends samples to a Prometheus remote-write receiver.
type remoteWrite struct {
	o      *RemoteWrite
	client *http.Client
	oldTil time.Time // speak 1.0 until then
}

func newRemoteWrite(s *Sink) (*remoteWrite, error) {
	c, err := httpClient(s)
	if err != nil {
		return nil, err
	}
	return &remoteWrite{o: s.RemoteWrite, client: c}, nil
}

func (w *remoteWrite) close() error {
	w.client.CloseIdleConnections()
	return nil
}

func (w *remoteWrite) send(ctx context.Context, batches []store.Batch) (queue.Items, error) {
	all := gather(batches)
	if len(all) == 0 {
		return queue.Items{}, nil
	}
	if !w.o.Version1 && time.Now().After(w.oldTil) {
		status, header, text, err := w.post(ctx, contentType2, "2.0.0", encode2(all))
		if err != nil {
			return queue.Items{}, err
		}
		written := header.Get(writtenHeader)
		switch {
		case status == http.StatusUnsupportedMediaType || status/100 == 2 && written == "":
			w.oldTil = time.Now().Add(askAgain)
		case status/100 == 2:
			return queue.Items{}, w.compare(written, all)
		default:
			return queue.Items{}, judge(status, header, text)
		}
	}
	status, header, text, err := w.post(ctx, contentType1, "0.1.0", encode1(all))
	if err != nil {
		return queue.Items{}, err
	}
	return queue.Items{}, judge(status, header, text)
}

// compare looks whether a receiver of 2.0 wrote what it accepted.
func (w *remoteWrite) compare(written string, all []timeSeries) error {
	sent := 0
	for i := range all {
		sent += len(all[i].points)
	}
	if n, err := strconv.Atoi(written); err != nil || n < sent {
		return &refusal{fmt.Errorf("receiver wrote %.20q of %d points", written, sent)}
	}
	return nil
}

func (w *remoteWrite) post(ctx context.Context, contentType, version string, body []byte) (int, http.Header, string, error) {
	h := http.Header{}
	for name, value := range w.o.Headers {
		h.Set(name, value)
	}
	h.Set("Content-Type", contentType)
	h.Set("Content-Encoding", "snappy")
	h.Set("X-Prometheus-Remote-Write-Version", version)
	h.Set("User-Agent", userAgent)
	password, err1 := w.o.Password.Read()
	token, err2 := w.o.Token.Read()
	if err := errors.Join(err1, err2); err != nil {
		return 0, nil, "", err
	}
	switch {
	case token != "":
		h.Set("Authorization", "Bearer "+token)
	case w.o.User != "":
		h.Set("Authorization", basic(w.o.User, password))
	}
	return post(ctx, w.client, w.o.URL, h, snappy.Encode(nil, body))
}

const userAgent = "patronus-export"

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}
