package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"patronus/dashboard/export/outbound"
)

// httpClient is the client of a sink.
func httpClient(s *Sink) (*http.Client, error) {
	return outbound.Guard{Private: s.Private}.Client(s.TLS, sendTimeout)
}

// post sends a body and returns the answer's status, headers and the beginning
// of its text.
func post(ctx context.Context, c *http.Client, to string, header http.Header, body []byte) (int, http.Header, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return 0, nil, "", fmt.Errorf("post: %w", err)
	}
	req.Header = header
	resp, err := c.Do(req)
	if err != nil {
		// The URL may be long, and is known from the configuration.
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return 0, nil, "", fmt.Errorf("post: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return 0, nil, "", fmt.Errorf("post: %w", err)
	}
	return resp.StatusCode, resp.Header, oneLine(string(text)), nil
}

// oneLine makes a server's words fit for a log.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	return s[:min(len(s), 300)]
}

// judge makes an error of a status that is not 2xx. What concerns the data
// (400, 413, 422) is a refusal. What concerns the configuration (401, 403, 404
// and the like) is not: the data is good, and somebody will mend the address or
// the secret.
func judge(status int, header http.Header, text string) error {
	if status/100 == 2 {
		return nil
	}
	err := fmt.Errorf("status %d: %s", status, text)
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return &refusal{err}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if d := retryAfter(header.Get("Retry-After"), time.Now()); d > 0 {
			return &later{err, d}
		}
	}
	return err
}

// retryAfter reads seconds or a date (RFC 9110, 10.2.3).
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n < 1<<20 {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(t.Sub(now), 0)
	}
	return 0
}
