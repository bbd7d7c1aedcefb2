package dashboard

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// reloadEvery is how often the files of a certificate are looked at, at most.
const reloadEvery = time.Second

// Certificate is what the dashboard shows to prove who it is, read from two
// files. When they change, new connections get the new one; files that cannot
// be used leave the old one in place. It is safe for concurrent use.
type Certificate struct {
	certFile, keyFile string

	mu      sync.Mutex
	cert    *tls.Certificate
	looked  time.Time
	changed [2]time.Time // modification times that were read
	err     error        // why the newest files are not used
}

// LoadCertificate reads a certificate chain and its key, both PEM.
func LoadCertificate(certFile, keyFile string) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// SelfSigned reads dashboard.crt and dashboard.key of a directory, and makes
// them first if there are none: until there is a better one, a certificate
// whose fingerprint the console shows.
func SelfSigned(dir string, hosts []string, now time.Time) (*Certificate, error) {
	certFile, keyFile := filepath.Join(dir, "dashboard.crt"), filepath.Join(dir, "dashboard.key")
	if _, err := os.Stat(certFile); errors.Is(err, fs.ErrNotExist) {
		if err := writeSelfSigned(certFile, keyFile, hosts, now); err != nil {
			return nil, fmt.Errorf("make a certificate: %w", err)
		}
	}
	return LoadCertificate(certFile, keyFile)
}

func writeSelfSigned(certFile, keyFile string, hosts []string, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	template := x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Patronus dashboard"},
		// A day back: the client's clock may be behind.
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, h := range hosts {
		if a, err := netip.ParseAddr(h); err == nil {
			template.IPAddresses = append(template.IPAddresses, a.AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	// The key first: a certificate is taken to have one.
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
}

// modified are the times at which the files were last changed.
func (c *Certificate) modified() (at [2]time.Time, err error) {
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return at, fmt.Errorf("certificate: %w", err)
		}
		at[i] = info.ModTime()
	}
	return at, nil
}

// load reads the files. mu is held, or c is not shared yet.
func (c *Certificate) load() error {
	at, err := c.modified()
	if err != nil {
		return err
	}
	c.changed = at
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if cert.Leaf == nil {
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return fmt.Errorf("certificate: %w", err)
		}
	}
	c.cert = &cert
	return nil
}

// current is the newest certificate that could be read.
func (c *Certificate) current(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= reloadEvery {
		c.looked = now
		at, err := c.modified()
		if err == nil && at != c.changed {
			err = c.load()
		} else if err == nil {
			err = c.err
		}
		c.err = err
	}
	return c.cert, nil
}

// Problem is why the newest files are not used, nil if they are.
func (c *Certificate) Problem() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Digest is the SHA-256 of the certificate (DER).
func (c *Certificate) Digest() [sha256.Size]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return sha256.Sum256(c.cert.Certificate[0])
}

// Fingerprint is the SHA-256 of the certificate as browsers show it.
func (c *Certificate) Fingerprint() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := sha256.Sum256(c.cert.Certificate[0])
	text := strings.ToUpper(hex.EncodeToString(sum[:]))
	var b bytes.Buffer
	for i := 0; i < len(text); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(text[i : i+2])
	}
	return b.String()
}

// Expires is when the certificate ends.
func (c *Certificate) Expires() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cert.Leaf.NotAfter
}

// TLS is the configuration of a listener. TLS 1.2 is for clients that have
// nothing newer; there is no HTTP/2.
func (c *Certificate) TLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: c.current}
}

// Redirect answers plain HTTP with the same address by HTTPS on a port, and
// nothing else, until ctx ends.
func (s *Server) Redirect(ctx context.Context, l net.Listener, port uint16) error {
	server := &fasthttp.Server{
		Name: "", ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, IdleTimeout: 5 * time.Second,
		MaxRequestBodySize: 1, ReadBufferSize: maxHeader, Concurrency: 256, NoDefaultServerHeader: true,
		Handler: func(c *fasthttp.RequestCtx) { s.redirect(c, port) },
	}
	stop := context.AfterFunc(ctx, func() {
		// Nothing is under way here that is worth waiting for.
		_ = server.Shutdown()
	})
	defer stop()
	if err := server.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("redirect to https: %w", err)
	}
	return ctx.Err()
}

func (s *Server) redirect(c *fasthttp.RequestCtx, port uint16) {
	c.SetConnectionClose()
	host := strings.ToLower(string(c.Host()))
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	addr, err := netip.ParseAddr(strings.Trim(name, "[]"))
	if err != nil && !s.hosts[name] || !c.IsGet() && !c.IsHead() {
		c.SetStatusCode(fasthttp.StatusMisdirectedRequest)
		return
	}
	if err == nil {
		name = addr.String()
	}
	target := "https://" + name
	if err == nil && addr.Is6() {
		target = "https://[" + name + "]"
	}
	if port != 443 {
		target += fmt.Sprintf(":%d", port)
	}
	// The path alone: what is in the query may be meant for nobody to see.
	path := string(c.URI().PathOriginal())
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.ContainsAny(path, "\\\r\n%") {
		path = "/"
	}
	c.Response.Header.Set("Location", target+path)
	c.SetStatusCode(fasthttp.StatusPermanentRedirect)
}
