package outbound

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestGuard(t *testing.T) {
	tests := []struct {
		addr            string
		public, private bool
	}{
		{"192.0.2.1", true, true},
		{"8.8.8.8", true, true},
		{"2001:db8::1", true, true},
		{"2606:4700::1111", true, true},
		{"10.1.2.3", false, true},
		{"172.31.0.1", false, true},
		{"192.168.0.1", false, true},
		{"100.64.0.1", false, true},
		{"127.0.0.1", false, true},
		{"::1", false, true},
		{"fd12::1", false, true},
		{"::ffff:127.0.0.1", false, true},
		{"::ffff:169.254.169.254", false, false},
		{"169.254.169.254", false, false},
		{"100.100.100.200", false, false},
		{"fd00:ec2::254", false, false},
		{"fe80::1%eth0", false, false},
		{"0.0.0.0", false, false},
		{"0.1.2.3", false, false},
		{"::", false, false},
		{"224.0.0.1", false, false},
		{"255.255.255.255", false, false},
		{"240.0.0.1", false, false},
		{"64:ff9b::a9fe:a9fe", false, false},
		{"2002:7f00:1::", false, false},
		{"2001:0:1::", false, false},
	}
	for _, tt := range tests {
		a := netip.MustParseAddr(tt.addr)
		if err := (Guard{}).Check(a); (err == nil) != tt.public {
			t.Errorf("%s: %v", tt.addr, err)
		}
		if err := (Guard{Private: true}).Check(a); (err == nil) != tt.private {
			t.Errorf("%s, private allowed: %v", tt.addr, err)
		}
	}
	if !errors.Is(Guard{}.Check(netip.Addr{}), ErrForbidden) {
		t.Error("no address at all")
	}
}

func TestClient(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	}))
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	get := func(g Guard, c TLS) (int, error) {
		client, err := g.Client(c, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		defer client.CloseIdleConnections()
		resp, err := client.Get(srv.URL)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	if code, err := get(Guard{Private: true}, TLS{CAFile: ca}); err != nil || code != http.StatusFound {
		t.Errorf("trusted: %d, %v", code, err)
	}
	if _, err := get(Guard{}, TLS{CAFile: ca}); !errors.Is(err, ErrForbidden) {
		t.Errorf("loopback: %v", err)
	}
	var unverified *tls.CertificateVerificationError
	if _, err := get(Guard{Private: true}, TLS{}); !errors.As(err, &unverified) {
		t.Errorf("unknown authority: %v", err)
	}
}

func TestTLSRefusals(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []TLS{{CAFile: empty}, {CAFile: empty + "x"}, {CertFile: empty}, {CertFile: empty, KeyFile: empty}} {
		if _, err := c.Config(); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

func TestSecret(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) Secret {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Secret(name)
	}
	if got, err := write("good", " hunter2\n").Read(); err != nil || got != "hunter2" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := Secret("").Read(); err != nil || got != "" {
		t.Errorf("no secret: %q, %v", got, err)
	}
	bad := []Secret{write("empty", ""), write("lines", "hunter2\nInjected: header"), write("long", strings.Repeat("x", maxSecret+1)), Secret(dir + "/none")}
	for _, s := range bad {
		_, err := s.Read()
		if err == nil {
			t.Errorf("%s is accepted", s)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
}
