package outbound

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// maxSecret bounds a secret's file, bytes.
const maxSecret = 64 << 10

// Secret is the name of a file that holds a password or token. The content is
// read each time it is needed, so that a rotated one is used at once, and it is
// never part of a configuration, an error or a log.
type Secret string

// Read returns the file's content without surrounding white space; an empty
// name is an empty secret.
func (s Secret) Read() (string, error) {
	if s == "" {
		return "", nil
	}
	f, err := os.Open(string(s))
	if err != nil {
		return "", fmt.Errorf("secret: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", string(s), err)
	}
	text := strings.TrimSpace(string(b))
	if len(b) > maxSecret || text == "" || strings.ContainsAny(text, "\r\n\x00") {
		return "", fmt.Errorf("secret %s: want one line of text", string(s))
	}
	return text, nil
}

// TLS says how servers are verified and how we show who we are. The zero value
// verifies against the system's authorities.
type TLS struct {
	// CAFile holds the authorities to trust instead of the system's, PEM.
	CAFile string
	// CertFile and KeyFile are our own certificate, PEM.
	CertFile, KeyFile string
	// ServerName is verified instead of the host of the address.
	ServerName string
}

// Config reads the files. There is no way to skip verification: a server with a
// certificate of its own is its own CAFile.
func (t TLS) Config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("authorities: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("authorities: %s has no certificate", t.CAFile)
		}
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		return nil, errors.New("a certificate and its key go together")
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// LogValue is the file's name: the content is never logged.
func (s Secret) LogValue() slog.Value { return slog.StringValue(string(s)) }
