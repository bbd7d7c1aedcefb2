package enroll

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

var (
	// ErrRefused is what a dashboard answers to a token or claim that will not
	// become good by being repeated; the text says why.
	ErrRefused = errors.New("the dashboard refuses")
	// ErrImpostor is for a dashboard with another certificate than the token's.
	ErrImpostor = errors.New("not the dashboard that made the token")
)

// The paths of the dashboard's API that an appliance calls before it has a site.
const (
	ChallengePath = "/api/v1/enrollment/challenge"
	ClaimPath     = "/api/v1/enrollment/claim"
)

// callFor bounds one request.
const callFor = 30 * time.Second

// Client speaks to the dashboard that made a token.
type Client struct {
	token Token
	http  *http.Client
}

// NewClient makes a client that speaks to nobody but the token's dashboard.
func NewClient(t Token) *Client {
	return &Client{token: t, http: &http.Client{
		Timeout: callFor,
		// A redirect would lead away from the dashboard that the token names.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{
				MinVersion: tls.VersionTLS12,
				// The names in the certificate do not matter: the token says which
				// one it is, to the last byte.
				InsecureSkipVerify: true,
				VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
					if len(raw) == 0 || sha256.Sum256(raw[0]) != t.Certificate {
						return ErrImpostor
					}
					return nil
				},
			},
		},
	}}
}

// Claim claims the token's site: claim makes the envelope for a challenge. The
// addresses of the token are tried in order until one answers.
func (c *Client) Claim(ctx context.Context, claim func(Challenge) (*Envelope, error)) (*Grant, error) {
	var failed error
	for _, at := range c.token.Addresses {
		g, err := c.claimAt(ctx, "https://"+at, claim)
		if err == nil || errors.Is(err, ErrRefused) {
			return g, err
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

func (c *Client) claimAt(ctx context.Context, base string, claim func(Challenge) (*Envelope, error)) (*Grant, error) {
	hash := c.token.Hash()
	var ch Challenge
	if err := c.post(ctx, base+ChallengePath, Hello{Token: hash[:]}, &ch); err != nil {
		return nil, err
	}
	e, err := claim(ch)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	var g Grant
	if err := c.post(ctx, base+ClaimPath, e, &g); err != nil {
		return nil, err
	}
	return &g, nil
}

func (c *Client) post(ctx context.Context, url string, body, out any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("enroll: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("enroll: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("enroll: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 32<<20))
	if err != nil {
		return fmt.Errorf("enroll: %w", err)
	}
	if resp.StatusCode >= 300 {
		var p struct {
			Detail string `json:"detail"`
		}
		why := resp.Status
		if json.Unmarshal(answer, &p) == nil && p.Detail != "" {
			why = clean(p.Detail)
		}
		if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500 {
			return fmt.Errorf("enroll at %s: %s", req.URL.Host, why)
		}
		return fmt.Errorf("%w: %s", ErrRefused, why)
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("enroll: unreadable answer: %w", err)
	}
	return nil
}

// clean makes text from afar fit for a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s[:min(len(s), 300)])
}
