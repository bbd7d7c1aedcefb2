package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// descriptor asks the supervisor for an open file: what kind, and how to open
// it. The same kind and key get the same open file, which is how kernel routes and
// NAT mappings outlive the edge.
type descriptor struct {
	Kind string          `json:"kind"` // udp, tun, packet
	Key  string          `json:"key"`  // what makes it the same one again
	Spec json.RawMessage `json:"spec"`
}

// maxDescriptor bounds a request: a tun port names a route for every prefix of
// the fabric.
const maxDescriptor = 1 << 20

type descriptorAnswer struct {
	Error string `json:"error,omitempty"`
}

// opener opens the file that a spec describes. again, if there is one, is
// called when a file that is held is asked for with a spec that may be new.
type opener struct {
	open  func(spec json.RawMessage) (*os.File, error)
	again func(spec json.RawMessage) error
}

// broker is the supervisor's end: it opens files, keeps them, and hands out
// duplicates over a SOCK_SEQPACKET unix socket (SCM_RIGHTS).
type broker struct {
	openers map[string]opener

	mu   sync.Mutex
	held map[string]*os.File
}

func newBroker(openers map[string]opener) *broker {
	return &broker{openers: openers, held: make(map[string]*os.File)}
}

// serve answers one edge until its end of the socket closes.
func (b *broker) serve(ctx context.Context, conn *net.UnixConn) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	buf := make([]byte, maxDescriptor)
	for {
		n, err := conn.Read(buf)
		if err != nil || n == 0 {
			return nil // the edge is gone, or we are to stop
		}
		var answer descriptorAnswer
		var rights []byte
		if f, err := b.open(buf[:n]); err != nil {
			answer.Error = err.Error()
		} else {
			rights = unix.UnixRights(int(f.Fd()))
		}
		text, err := json.Marshal(answer)
		if err != nil {
			return fmt.Errorf("encode the broker's answer: %w", err)
		}
		if _, _, err := conn.WriteMsgUnix(text, rights, nil); err != nil {
			return nil
		}
	}
}

func (b *broker) open(request []byte) (*os.File, error) {
	var d descriptor
	if err := json.Unmarshal(request, &d); err != nil {
		return nil, fmt.Errorf("unreadable request: %w", err)
	}
	open, ok := b.openers[d.Kind]
	if !ok {
		return nil, fmt.Errorf("unknown kind of descriptor %q", d.Kind)
	}
	name := d.Kind + " " + d.Key
	b.mu.Lock()
	defer b.mu.Unlock()
	if f, ok := b.held[name]; ok {
		if open.again == nil {
			return f, nil
		}
		if err := open.again(d.Spec); err == nil {
			return f, nil
		}
		// What it was open on has gone, or is not what it was.
		f.Close()
		delete(b.held, name)
	}
	f, err := open.open(d.Spec)
	if err != nil {
		return nil, err
	}
	b.held[name] = f
	return f, nil
}

// close closes all files.
func (b *broker) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, f := range b.held {
		f.Close()
		delete(b.held, name)
	}
}

// brokerClient is the edge's end. It is safe for concurrent use.
type brokerClient struct {
	mu   sync.Mutex
	conn *net.UnixConn
}

// file asks for a descriptor; the caller owns the returned file.
func (c *brokerClient) file(kind, key string, spec any) (*os.File, error) {
	raw, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("encode %s descriptor: %w", kind, err)
	}
	request, err := json.Marshal(descriptor{Kind: kind, Key: key, Spec: raw})
	if err != nil {
		return nil, fmt.Errorf("encode %s descriptor: %w", kind, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.conn.Write(request); err != nil {
		return nil, fmt.Errorf("ask the supervisor: %w", err)
	}
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, fmt.Errorf("ask the supervisor: %w", err)
	}
	var answer descriptorAnswer
	if err := json.Unmarshal(buf[:n], &answer); err != nil {
		return nil, fmt.Errorf("the supervisor's answer: %w", err)
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("the supervisor sent no %s descriptor", kind)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("the supervisor sent no %s descriptor", kind)
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), kind), nil
}

// socketPair returns the supervisor's connection and the file its child gets.
func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	ours := os.NewFile(uintptr(fds[0]), "broker")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, fmt.Errorf("broker socket: %w", err)
	}
	return conn.(*net.UnixConn), os.NewFile(uintptr(fds[1]), "broker"), nil
}
