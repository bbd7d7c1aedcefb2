package syslog

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/goleak"

	"patronus/dashboard/export/outbound"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var at = time.Date(2026, 11, 25, 3, 4, 5, 123456789, time.UTC)

func TestAppend(t *testing.T) {
	tests := []struct {
		name string
		m    Message
		want string
	}{
		{
			"everything",
			Message{
				Facility: Local0, Severity: Warning, At: at, Host: "hq", App: "patronus", Proc: "42", ID: "path_status_change",
				Data: []Element{{"patronus@32473", []Param{{"site", "hq"}, {"why", `a "b" [c] \d`}}}}, Text: "hello",
			},
			`<132>1 2026-11-25T03:04:05.123456Z hq patronus 42 path_status_change [patronus@32473 site="hq" why="a \"b\" [c\] \\d"] hello`,
		},
		{"nothing", Message{}, "<0>1 - - - - - -"},
		{"whole second", Message{Facility: Daemon, Severity: Error, At: at.Truncate(time.Second)}, "<27>1 2026-11-25T03:04:05Z - - - - -"},
		{"text that is UTF-8", Message{Text: "Zürich"}, "<0>1 - - - - - - \ufeffZürich"},
		{"forged lines", Message{Host: "a b\nc", Text: "x\n<0>1 y"}, "<0>1 - a?b?c - - - - x <0>1 y"},
		{"out of range", Message{Facility: 99, Severity: 99}, "<191>1 - - - - - -"},
		{"element without parameters", Message{Data: []Element{{ID: "origin"}, {ID: `x="]y`}}}, "<0>1 - - - - - [origin][x???y]"},
	}
	for _, tt := range tests {
		if got := string(tt.m.Append(nil, 0)); got != tt.want {
			t.Errorf("%s:\n got %q\nwant %q", tt.name, got, tt.want)
		}
	}
}

// The grammar of RFC 5424, section 6, for what we write.
var (
	nameRE   = `[!#-<>-\\^-~]{1,32}`
	valueRE  = `"(?:[^"\\\]]|\\["\\\]])*"`
	headRE   = regexp.MustCompile(`^<(\d|[1-9]\d|1[0-8]\d|19[01])>1 (-|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) `)
	elemRE   = regexp.MustCompile(`^\[` + nameRE + `(?: ` + nameRE + `=` + valueRE + `)*\]`)
	messages = []Message{
		{Facility: Local0, Severity: Warning, At: at, Host: "hq", App: "patronus", ID: "x", Text: "hello"},
		{Host: strings.Repeat("é", 300), Data: []Element{{ID: "a@1", Params: []Param{{"", "\\]\"\n\x00\xff"}, {"=]\" ", "Zürich\u2028"}}}}, Text: "\xff\xfe"},
	}
)

func conforms(b []byte) error {
	s := string(b)
	if !utf8.ValidString(s) {
		return errors.New("not UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return fmt.Errorf("control character %U", r)
		}
	}
	head := headRE.FindString(s)
	if head == "" {
		return errors.New("header")
	}
	s = s[len(head):]
	if rest, ok := strings.CutPrefix(s, "-"); ok {
		s = rest
	} else {
		n := 0
		for e := elemRE.FindString(s); e != ""; e = elemRE.FindString(s) {
			s = s[len(e):]
			n++
		}
		if n == 0 {
			return errors.New("structured data")
		}
	}
	if s == "" {
		return nil
	}
	text, ok := strings.CutPrefix(s, " ")
	if !ok {
		return errors.New("no space before the text")
	}
	_, marked := strings.CutPrefix(text, "\ufeff")
	for _, r := range text {
		if r >= utf8.RuneSelf && !marked {
			return errors.New("UTF-8 without its mark")
		}
	}
	return nil
}

// Whatever is in a message, what is sent is one message of the grammar, and
// within its limit.
func FuzzAppend(f *testing.F) {
	for _, m := range messages {
		param := Param{}
		id := ""
		if len(m.Data) > 0 {
			id, param = m.Data[0].ID, m.Data[0].Params[0]
		}
		f.Add(uint8(m.Facility), uint8(m.Severity), m.At.UnixNano(), m.Host, m.App, m.Proc, m.ID, id, param.Name, param.Value, m.Text, uint16(480))
	}
	f.Fuzz(func(t *testing.T, facility, severity uint8, ns int64, host, app, proc, id, element, name, value, text string, limit uint16) {
		m := Message{
			Facility: Facility(facility), Severity: Severity(severity), At: time.Unix(0, ns), Host: host, App: app, Proc: proc, ID: id,
			Data: []Element{{element, []Param{{name, value}, {value, name}}}, {name, nil}}, Text: text,
		}
		most := max(int(limit), 600)
		for _, limit := range []int{0, most} {
			b := m.Append(nil, limit)
			if err := conforms(b); err != nil {
				t.Fatalf("%v: %q", err, b)
			}
			if limit > 0 && len(b) > limit {
				t.Fatalf("%d octets, limit %d", len(b), limit)
			}
		}
	})
}

func writer(t *testing.T, o Options) *Writer {
	t.Helper()
	o.Guard.Private = true
	w, err := NewWriter(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func TestUDP(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w := writer(t, Options{Network: UDP, Addr: c.LocalAddr().String()})
	long := Message{Text: strings.Repeat("x", 9000)}
	if err := w.Send(t.Context(), []Message{messages[0], long}); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 9000)
	for i, want := range []int{len(messages[0].Append(nil, 0)), limitUDP} {
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, _, err := c.ReadFrom(b)
		if err != nil || n != want {
			t.Errorf("datagram %d: %d octets, %v; want %d", i, n, err, want)
		}
	}
}

// counted reads one message of RFC 6587, 3.4.1.
func counted(r *bufio.Reader) (string, error) {
	length, err := r.ReadString(' ')
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(length, " "))
	if err != nil {
		return "", err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return string(b), err
}

func receive(t *testing.T, ln net.Listener, o Options) {
	t.Helper()
	w := writer(t, o)
	want := string(messages[0].Append(nil, 0))
	for round := range 2 {
		sent := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			sent <- w.Send(ctx, []Message{messages[0], messages[1], messages[0]})
		}()
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(c)
		for i := range 3 {
			got, err := counted(r)
			if err != nil || i != 1 && got != want {
				t.Fatalf("round %d, message %d: %q, %v", round, i, got, err)
			}
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		// The receiver goes away; the writer must notice before it writes.
		c.Close()
	}
}

func TestTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	receive(t, ln, Options{Network: TCP, Addr: ln.Addr().String()})
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"collector"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	receive(t, ln, Options{Network: TLS, Addr: ln.Addr().String(), TLS: outbound.TLS{CAFile: ca, ServerName: "collector"}})
}

func TestWriterRefuses(t *testing.T) {
	for _, o := range []Options{{Network: "relp", Addr: "a:1"}, {Network: TCP, Addr: "a"}, {Network: TLS, Addr: "a:1", TLS: outbound.TLS{CAFile: "/nowhere"}}} {
		if _, err := NewWriter(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
	w, err := NewWriter(Options{Network: TCP, Addr: "127.0.0.1:9"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Send(t.Context(), messages); !errors.Is(err, outbound.ErrForbidden) {
		t.Errorf("loopback without permission: %v", err)
	}
}

func BenchmarkAppend(b *testing.B) {
	b.ReportAllocs()
	var buf []byte
	for b.Loop() {
		buf = messages[0].Append(buf[:0], limitUDP)
	}
}
