package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"time"

	"patronus/dashboard"
	"patronus/dashboard/auth"
)

// ErrImpostor is for a dashboard with another certificate than the one that is
// expected.
var ErrImpostor = errors.New("the dashboard has another certificate")

// mostAnswer bounds an answer that is read whole.
const mostAnswer = 64 << 20

// Options say which dashboard, and who asks.
type Options struct {
	// URL is where the dashboard is: https://host:8443.
	URL string
	// Token is an API token or the token of a login; empty asks as nobody.
	Token string
	// Fingerprint is the SHA-256 of the dashboard's certificate as its console
	// shows it; empty: the certificate must be signed for the name in URL by an
	// authority of Authorities, or of the system.
	Fingerprint string
	Authorities *x509.CertPool
	// Timeout bounds one request that is not a stream; 0 means 30 s.
	Timeout time.Duration
	// UserAgent tells the dashboard's log which program asks.
	UserAgent string
}

// Client asks one dashboard.
type Client struct {
	o    Options
	base *url.URL
	http *http.Client
}

// New makes a client; it asks nothing yet.
func New(o Options) (*Client, error) {
	base, err := url.Parse(o.URL)
	if err != nil || base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("dashboard %q: want https://HOST:PORT", o.URL)
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Authorities}
	if o.Fingerprint != "" {
		want, err := hex.DecodeString(strings.NewReplacer(":", "", " ", "").Replace(o.Fingerprint))
		if err != nil || len(want) != sha256.Size {
			return nil, fmt.Errorf("fingerprint %q: want the 32 bytes of a SHA-256 in hexadecimal", o.Fingerprint)
		}
		// The names in the certificate do not matter: this one and no other.
		config.InsecureSkipVerify = true
		config.VerifyConnection = func(s tls.ConnectionState) error {
			got := sha256.Sum256(s.PeerCertificates[0].Raw)
			if subtle.ConstantTimeCompare(got[:], want) != 1 {
				return fmt.Errorf("%w: SHA-256 %X", ErrImpostor, got)
			}
			return nil
		}
	}
	return &Client{o: o, base: base, http: &http.Client{
		Transport: &http.Transport{TLSClientConfig: config, Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute},
		// A redirect would take the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Option is what a request says besides its path and body.
type Option func(*http.Request)

// Query sets a query parameter, if it has a value.
func Query(name, value string) Option {
	return func(r *http.Request) {
		if value != "" {
			q := r.URL.Query()
			q.Set(name, value)
			r.URL.RawQuery = q.Encode()
		}
	}
}

// DryRun asks what a change would do, and changes nothing.
func DryRun(on bool) Option {
	if !on {
		return func(*http.Request) {}
	}
	return Query("dry_run", "true")
}

// IfMatch makes a write fail if anything newer than tag is there.
func IfMatch(tag string) Option { return Header("If-Match", tag) }

// Idempotency makes a creation that is sent twice happen once.
func Idempotency(key string) Option { return Header("Idempotency-Key", key) }

// Header sets a header.
func Header(name, value string) Option { return func(r *http.Request) { r.Header.Set(name, value) } }

// do sends body as JSON, if there is one, and reads the answer into out, unless
// that is nil.
func (c *Client) do(ctx context.Context, method, path string, body, out any, options []Option) error {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	resp, err := c.Send(ctx, method, path, body, append([]Option{Header("Accept", "application/json")}, options...)...)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer+1))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if len(text) > mostAnswer {
		return fmt.Errorf("%s %s: an answer of over %d bytes", method, path, mostAnswer)
	}
	if out == nil || len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s %s: the answer: %w", method, path, err)
	}
	return nil
}

// Send is for answers that are no JSON, or streams: captures, CSV, YAML. body
// may be nil, a value for JSON, or a [Text]. The caller closes the answer's body
// and bounds the time by ctx. An answer that is a refusal is an error.
func (c *Client) Send(ctx context.Context, method, path string, body any, options ...Option) (*http.Response, error) {
	var kind string
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case Text:
		kind, in = b.Kind, strings.NewReader(b.Body)
	default:
		text, err := encode(body)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", method, path, err)
		}
		kind, in = "application/json", bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.base.String(), "/")+path, in)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	if c.o.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.o.Token)
	}
	if c.o.UserAgent != "" {
		req.Header.Set("User-Agent", c.o.UserAgent)
	}
	for _, o := range options {
		o(req)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err // says method and URL already
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	p := &dashboard.Problem{}
	if json.Unmarshal(text, p) != nil || p.Status == 0 {
		*p = dashboard.Problem{Status: resp.StatusCode, Title: http.StatusText(resp.StatusCode), Detail: strings.TrimSpace(string(text[:min(len(text), 300)]))}
	}
	return nil, p
}

// encode is body as JSON, with the secrets that its types hide elsewhere: here
// they are what is sent.
func encode(body any) ([]byte, error) {
	text, err := json.Marshal(body)
	v := reflect.ValueOf(body)
	if err != nil || v.Kind() != reflect.Struct || !bytes.Contains(text, hidden) {
		return text, err
	}
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&fields); err != nil {
		return nil, err
	}
	reveal(v, fields)
	return json.Marshal(fields)
}

var hidden, _ = json.Marshal(auth.Secret(""))

func reveal(v reflect.Value, into map[string]any) {
	for i := range v.NumField() {
		f, value := v.Type().Field(i), v.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if value.Kind() == reflect.Pointer && !value.IsNil() {
			value = value.Elem()
		}
		switch s := value.Interface().(type) {
		case auth.Secret:
			if _, ok := into[name]; ok {
				into[name] = string(s)
			}
		default:
			switch nested, ok := into[name].(map[string]any); {
			case value.Kind() != reflect.Struct:
			case f.Anonymous && name == "":
				reveal(value, into)
			case ok:
				reveal(value, nested)
			}
		}
	}
}

// Text is a body that is sent as it is.
type Text struct{ Kind, Body string }

// Status is the HTTP status of a refusal, 0 of other errors.
func Status(err error) int {
	if p := (*dashboard.Problem)(nil); errors.As(err, &p) {
		return p.Status
	}
	return 0
}

// All goes through the pages of a list. An error is the last thing it yields.
func All[T any](ctx context.Context, list func(context.Context, ...Option) (*dashboard.Page[T], error), options ...Option) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		cursor := ""
		for {
			page, err := list(ctx, append(options[:len(options):len(options)], Query("cursor", cursor))...)
			if err != nil {
				var zero T
				yield(zero, err)
				return
			}
			for _, x := range page.Items {
				if !yield(x, nil) {
					return
				}
			}
			if cursor = page.Next; cursor == "" {
				return
			}
		}
	}
}
