package wire

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sync/errgroup"

	"patronus/e2e/vnet"
)

// Command is one line of JSON that a Wire obeys:
//
//	{"cmd":"set","dir":"ab","impairment":{"delay_ms":20,"loss":0.01}}
//	{"cmd":"break"}  {"cmd":"heal","dir":"ba"}  {"cmd":"stats"}
//	{"cmd":"carrier","end":"a","up":false}
type Command struct {
	Cmd string `json:"cmd"`
	// Dir is "ab", "ba" or empty for both.
	Dir        string           `json:"dir,omitempty"`
	Impairment *vnet.Impairment `json:"impairment,omitempty"`
	End        string           `json:"end,omitempty"`
	Up         bool             `json:"up,omitempty"`
}

// Reply is the line that answers a Command.
type Reply struct {
	Error string      `json:"error,omitempty"`
	AtoB  *vnet.Stats `json:"ab,omitempty"`
	BtoA  *vnet.Stats `json:"ba,omitempty"`
	Wire  *Stats      `json:"wire,omitempty"`
}

// ErrCommand means that a command makes no sense.
var ErrCommand = errors.New("wire: bad command")

// maxLine bounds a command.
const maxLine = 4 << 10

// Do obeys one command. Errors wrap ErrCommand, or are of the interface.
func (w *Wire) Do(c Command) (Reply, error) {
	var shapers []*vnet.Shaper
	switch c.Dir {
	case "":
		shapers = []*vnet.Shaper{w.link.Out, w.link.In}
	case "ab":
		shapers = []*vnet.Shaper{w.link.Out}
	case "ba":
		shapers = []*vnet.Shaper{w.link.In}
	default:
		return Reply{}, fmt.Errorf("%w: dir %q", ErrCommand, c.Dir)
	}
	switch c.Cmd {
	case "set":
		if c.Impairment == nil {
			return Reply{}, fmt.Errorf("%w: set without impairment", ErrCommand)
		}
		if err := c.Impairment.Validate(); err != nil {
			return Reply{}, fmt.Errorf("%w: %w", ErrCommand, err)
		}
		for _, s := range shapers {
			s.Set(*c.Impairment)
		}
	case "break", "heal":
		for _, s := range shapers {
			s.SetDown(c.Cmd == "break")
		}
	case "carrier":
		return Reply{}, w.SetCarrier(c.End, c.Up)
	case "stats":
		ab, ba := w.link.Stats()
		own := w.Stats()
		return Reply{AtoB: &ab, BtoA: &ba, Wire: &own}, nil
	default:
		return Reply{}, fmt.Errorf("%w: %q", ErrCommand, c.Cmd)
	}
	return Reply{}, nil
}

// Control obeys lines of JSON until r ends, answering each with one on out.
func (w *Wire) Control(r io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, maxLine), maxLine)
	enc := json.NewEncoder(out)
	for lines.Scan() {
		var c Command
		var reply Reply
		err := json.Unmarshal(lines.Bytes(), &c)
		if err != nil {
			err = fmt.Errorf("%w: %w", ErrCommand, err)
		} else {
			reply, err = w.Do(c)
		}
		if err != nil {
			reply.Error = err.Error()
		}
		if err := enc.Encode(reply); err != nil {
			return fmt.Errorf("wire: answer: %w", err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("wire: commands: %w", err)
	}
	return nil
}

// serve offers Control on a unix socket, to eight clients at once.
func (w *Wire) serve(ctx context.Context, path string) error {
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("wire: control: %w", err)
	}
	// Only its owner may impair; the directory is the caller's business.
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("wire: control: %w", err), l.Close())
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	clients := new(errgroup.Group)
	clients.SetLimit(8)
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return clients.Wait()
			}
			return errors.Join(fmt.Errorf("wire: control: %w", err), clients.Wait())
		}
		clients.Go(func() error {
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			defer c.Close()
			// A client that goes away, or talks nonsense, ends itself only.
			_ = w.Control(c, c)
			return nil
		})
	}
}
