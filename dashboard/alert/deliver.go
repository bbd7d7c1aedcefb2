package alert

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"github.com/wneessen/go-mail"

	"patronus/configs"
	"patronus/dashboard/export/outbound"
)

var (
	// errPermanent: the receiver does not want this message, and never will.
	errPermanent = errors.New("refused for good")
	// errNoChannel: a rule names receivers of a kind for which there is no channel.
	errNoChannel = fmt.Errorf("there is no such channel: add one with its server and secret: %w", errPermanent)
)

const (
	sendTimeout  = 15 * time.Second
	pagerDutyURL = "https://events.pagerduty.com/v2/enqueue"
)

// dialer dials what the guard allows: public addresses, and the private
// networks that the configuration names.
func dialer(private []netip.Prefix) *net.Dialer {
	return &net.Dialer{
		Timeout: 10 * time.Second,
		Control: func(_, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("%s: %w", address, outbound.ErrForbidden)
			}
			a := at.Addr().Unmap()
			guard := outbound.Guard{}
			for _, p := range private {
				guard.Private = guard.Private || p.Contains(a)
			}
			return guard.Check(a)
		},
	}
}

func tlsOf(c *configs.AlertChannel) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.Authority != "" {
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM([]byte(c.Authority)) {
			return nil, fmt.Errorf("authority is no certificate: %w", errPermanent)
		}
	}
	return t, nil
}

// deliver sends a message through a channel. Errors never hold the secret.
func deliver(ctx context.Context, c *configs.AlertChannel, private []netip.Prefix, secret string, m *Message, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	t, err := tlsOf(c)
	if err != nil {
		return err
	}
	if c.Kind == configs.Email {
		return sendMail(ctx, c, dialer(private), t, secret, m, now)
	}
	transport := &http.Transport{DialContext: dialer(private).DialContext, TLSClientConfig: t, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second, MaxResponseHeaderBytes: 64 << 10}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	switch c.Kind {
	case configs.Webhook:
		to := c.URL
		if len(m.To) > 0 {
			to = m.To[0]
		}
		if secret == "" {
			return fmt.Errorf("the channel has no secret to sign with: %w", errPermanent)
		}
		text, err := json.Marshal(webhookBody{Version: 1, ID: m.ID, Title: m.Title(), Test: m.Test, Alerts: m.Alerts})
		if err != nil {
			return err
		}
		return post(ctx, client, to, text, sign(secret, now, text))
	case configs.Slack:
		if secret == "" {
			return fmt.Errorf("the channel has no URL: %w", errPermanent)
		}
		body := map[string]any{"text": m.Title() + "\n" + m.Body()}
		if len(m.To) > 0 {
			body["channel"] = m.To[0]
		}
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		return post(ctx, client, secret, text, nil)
	}
	return page(ctx, client, c, secret, m)
}

// webhookBody is what a webhook gets.
type webhookBody struct {
	Version int     `json:"version"`
	ID      string  `json:"id"` // the same when it is sent again
	Title   string  `json:"title"`
	Test    bool    `json:"test,omitempty"`
	Alerts  []Alert `json:"alerts"`
}

// The headers of a signed webhook.
const (
	HeaderTimestamp = "X-Patronus-Timestamp" // Unix seconds
	HeaderSignature = "X-Patronus-Signature" // "sha256=" and the HMAC in hex
)

// sign signs timestamp, a dot and the body (RFC 2104 with SHA-256), so that an
// old message cannot be sent again as a new one.
func sign(secret string, now time.Time, body []byte) map[string]string {
	at := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(at + "."))
	mac.Write(body)
	return map[string]string{HeaderTimestamp: at, HeaderSignature: "sha256=" + hex.EncodeToString(mac.Sum(nil))}
}

func post(ctx context.Context, client *http.Client, to string, body []byte, headers map[string]string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil || req.URL.Scheme != "https" {
		return fmt.Errorf("not an https URL: %w", errPermanent)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "patronus")
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	res, err := client.Do(req)
	if err != nil {
		// Its text has the URL, which is Slack's secret.
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		if errors.Is(err, outbound.ErrForbidden) {
			return fmt.Errorf("%w: %w", err, errPermanent)
		}
		return err
	}
	defer res.Body.Close()
	// Read to let the connection end well; what it says is not needed.
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	switch {
	case res.StatusCode >= 200 && res.StatusCode < 300:
		return nil
	case res.StatusCode >= 300 && res.StatusCode < 500 && res.StatusCode != http.StatusRequestTimeout && res.StatusCode != http.StatusTooManyRequests:
		return fmt.Errorf("answered %s: %w", res.Status, errPermanent)
	}
	return fmt.Errorf("answered %s", res.Status)
}

// page sends PagerDuty's Events API v2 one event for each alert. An event that
// is sent again has the same key, and opens nothing twice.
func page(ctx context.Context, client *http.Client, c *configs.AlertChannel, secret string, m *Message) error {
	if secret == "" {
		return fmt.Errorf("the channel has no integration key: %w", errPermanent)
	}
	to := pagerDutyURL
	if c.URL != "" {
		to = c.URL
	}
	for i := range m.Alerts {
		a := &m.Alerts[i]
		event := map[string]any{"routing_key": secret, "dedup_key": a.ID, "event_action": "trigger"}
		if a.State == Resolved {
			event["event_action"] = "resolve"
		} else {
			event["payload"] = map[string]any{
				"summary": a.Title(), "source": a.Target, "severity": a.Severity, "component": a.Site, "class": a.Kind,
				"timestamp": a.FiredAt.UTC().Format(time.RFC3339), "custom_details": map[string]any{"text": a.Text(), "rule": a.Rule},
			}
		}
		text, err := json.Marshal(event)
		if err != nil {
			return err
		}
		if err := post(ctx, client, to, text, nil); err != nil {
			return err
		}
	}
	return nil
}

// sendMail hands a message to a mail server, which must offer STARTTLS
// (RFC 3207): there is no way to send in the clear.
func sendMail(ctx context.Context, c *configs.AlertChannel, d *net.Dialer, t *tls.Config, secret string, m *Message, now time.Time) error {
	to := c.To
	if len(m.To) > 0 {
		to = m.To
	}
	if len(to) == 0 {
		return fmt.Errorf("nobody to send to: %w", errPermanent)
	}
	host, portText, err := net.SplitHostPort(c.Server)
	if err != nil {
		return fmt.Errorf("server: %w", errPermanent)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return fmt.Errorf("server's port: %w", errPermanent)
	}
	msg := mail.NewMsg()
	if err := errors.Join(msg.From(c.From), msg.To(to...)); err != nil {
		return fmt.Errorf("%w: %w", err, errPermanent)
	}
	msg.Subject(m.Title())
	msg.SetDateWithValue(now)
	msg.SetBodyString(mail.TypeTextPlain, m.Body())
	t.ServerName = host
	options := []mail.Option{
		mail.WithPort(port), mail.WithTLSPolicy(mail.TLSMandatory), mail.WithTLSConfig(t), mail.WithTimeout(sendTimeout),
		mail.WithDialContextFunc(d.DialContext),
	}
	if c.User != "" {
		options = append(options, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(c.User), mail.WithPassword(secret))
	}
	client, err := mail.NewClient(host, options...)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errPermanent)
	}
	if err := client.DialAndSendWithContext(ctx, msg); err != nil {
		var failed *mail.SendError
		if errors.Is(err, outbound.ErrForbidden) || errors.As(err, &failed) && !failed.IsTemp() && failed.ErrorCode() >= 500 {
			return fmt.Errorf("%w: %w", err, errPermanent)
		}
		return err
	}
	return nil
}
