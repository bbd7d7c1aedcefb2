package alert

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patronus/configs"
)

// smtpServer is Debian's aiosmtpd with STARTTLS, which it insists on, and a
// password; it prints each message.
const smtpServer = `
import asyncio, ssl, sys
from aiosmtpd.smtp import SMTP, AuthResult
class Handler:
    async def handle_DATA(self, server, session, envelope):
        print('MESSAGE', envelope.mail_from, ','.join(envelope.rcpt_tos), 'tls' if session.ssl else 'clear')
        print(envelope.content.decode().replace('\r\n', '\n'))
        print('END', flush=True)
        return '250 OK'
def check(server, session, envelope, mechanism, data):
    return AuthResult(success=data.login == b'ops' and data.password == b's3cret')
async def main():
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(sys.argv[1], sys.argv[2])
    make = lambda: SMTP(Handler(), tls_context=tls, require_starttls=True, auth_required=True, authenticator=check)
    server = await asyncio.get_running_loop().create_server(make, '127.0.0.1', 0)
    print('PORT', server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
`

func certificate(t *testing.T, dir string) (cert, key string, authority []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	authority = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, text := range map[string][]byte{cert: authority, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text})} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key, authority
}

func TestMailByARealServer(t *testing.T) {
	const python = "/usr/bin/python3" // the one that Debian's modules are of
	if exec.Command(python, "-c", "import aiosmtpd").Run() != nil {
		t.Skip("python3-aiosmtpd is not installed: e2e/setup does it")
	}
	cert, key, authority := certificate(t, t.TempDir())
	server := exec.CommandContext(t.Context(), python, "-c", smtpServer, cert, key)
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill() // it has no other end
		_ = server.Wait()
	}()
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the server does not start")
	}
	port := strings.TrimPrefix(lines.Text(), "PORT ")
	d := newDesk(t, &configs.Alerts{Private: loopback, Rules: downRule(), Channels: []configs.AlertChannel{{
		Name: "mail", Kind: configs.Email, Server: "127.0.0.1:" + port, User: "ops", From: "patronus@example.com", To: []string{"a@example.com", "b@example.com"}, Authority: string(authority),
	}}})
	if m, err := d.Test(t.Context(), "mail"); err != nil || m.State == Sent {
		t.Fatalf("sent without the password: %v %+v", err, m)
	}
	if err := d.SetSecret(t.Context(), "mail", "s3cret"); err != nil {
		t.Fatal(err)
	}
	d.down["p1"] = 1
	d.pass(20 * time.Second)
	if log := d.Deliveries(); log[0].State != Sent {
		t.Fatalf("%+v", log[0])
	}
	var text strings.Builder
	for lines.Scan() && lines.Text() != "END" {
		text.WriteString(lines.Text() + "\n")
	}
	for _, want := range []string{"MESSAGE patronus@example.com a@example.com,b@example.com tls", "Subject: [CRITICAL] Down: p1", "Path p1 is down."} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	d.alerts.Channels[0].Authority = ""
	if m, err := d.Test(t.Context(), "mail"); err != nil || m.State != Failed || strings.Contains(m.Error, "s3cret") {
		t.Errorf("a certificate that nobody vouches for was taken: %v %+v", err, m)
	}
}
