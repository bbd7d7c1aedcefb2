package syslog

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"patronus/dashboard/export/outbound"
)

// Network is a transport.
type Network string

// The transports.
const (
	UDP Network = "udp" // RFC 5426; usually port 514
	TCP Network = "tcp" // RFC 6587 with octet counting; port 601
	TLS Network = "tls" // RFC 5425; port 6514
)

// What receivers must or should take: RFC 5426 3.2 and RFC 5425 4.3.1.
const (
	limitUDP    = 2048
	limitStream = 8192
)

// writeTimeout bounds one write.
const writeTimeout = 10 * time.Second

// Options say where messages go.
type Options struct {
	Network Network
	Addr    string // host:port
	Guard   outbound.Guard
	TLS     outbound.TLS
}

// Writer sends messages. It dials when it has something to send, and again
// after a failure.
type Writer struct {
	o    Options
	conn net.Conn
	buf  []byte
}

// NewWriter checks the options; it does not dial.
func NewWriter(o Options) (*Writer, error) {
	switch o.Network {
	case UDP, TCP, TLS:
	default:
		return nil, fmt.Errorf("syslog: %q is not udp, tcp or tls", o.Network)
	}
	if _, _, err := net.SplitHostPort(o.Addr); err != nil {
		return nil, fmt.Errorf("syslog: %w", err)
	}
	if _, err := o.TLS.Config(); err != nil {
		return nil, fmt.Errorf("syslog: %w", err)
	}
	return &Writer{o: o}, nil
}

// Send sends messages in order. After an error it is not known which of them
// arrived; sending them again may repeat some.
func (w *Writer) Send(ctx context.Context, messages []Message) error {
	if err := w.connect(ctx); err != nil {
		return fmt.Errorf("syslog: %w", err)
	}
	deadline := time.Now().Add(writeTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	err := w.conn.SetWriteDeadline(deadline)
	for i := range messages {
		if err != nil {
			break
		}
		err = w.write(&messages[i])
	}
	if err == nil && w.o.Network != UDP {
		err = w.flush()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("syslog: %w", err), w.Close())
	}
	return nil
}

func (w *Writer) write(m *Message) error {
	if w.o.Network == UDP {
		w.buf = m.Append(w.buf[:0], limitUDP)
		_, err := w.conn.Write(w.buf)
		w.buf = w.buf[:0]
		return err
	}
	// MSG-LEN SP SYSLOG-MSG; the length is known only afterwards.
	const room = 6
	start := len(w.buf)
	w.buf = m.Append(append(w.buf, "      "...), limitStream)
	length := strconv.Itoa(len(w.buf) - start - room)
	n := copy(w.buf[start:], length+" ")
	w.buf = append(w.buf[:start+n], w.buf[start+room:]...)
	if len(w.buf) > 64<<10 {
		return w.flush()
	}
	return nil
}

func (w *Writer) flush() error {
	_, err := w.conn.Write(w.buf)
	w.buf = w.buf[:0]
	return err
}

// connect dials if there is no connection, or if the peer has closed it, which
// a write would learn one message too late.
func (w *Writer) connect(ctx context.Context) error {
	w.buf = w.buf[:0]
	if w.conn != nil && w.o.Network != UDP && closedByPeer(w.conn) {
		if err := w.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
	}
	if w.conn != nil {
		return nil
	}
	dialer := w.o.Guard.Dialer()
	var err error
	switch w.o.Network {
	case TLS:
		config, cerr := w.o.TLS.Config()
		if cerr != nil {
			return cerr
		}
		secure := tls.Dialer{NetDialer: dialer, Config: config}
		w.conn, err = secure.DialContext(ctx, "tcp", w.o.Addr)
	default:
		w.conn, err = dialer.DialContext(ctx, string(w.o.Network), w.o.Addr)
	}
	if err != nil {
		w.conn = nil
	}
	return err
}

// closedByPeer looks for the end of a stream on which a receiver never says
// anything.
func closedByPeer(c net.Conn) bool {
	if c.SetReadDeadline(time.Now().Add(time.Millisecond)) != nil {
		return true
	}
	var b [1]byte
	_, err := c.Read(b[:])
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// Close ends the connection; the next Send dials again.
func (w *Writer) Close() error {
	if w.conn == nil {
		return nil
	}
	err := w.conn.Close()
	w.conn = nil
	if err != nil {
		return fmt.Errorf("syslog: %w", err)
	}
	return nil
}
