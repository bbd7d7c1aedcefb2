package appliance

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// A descriptor goes from the supervisor to the edge and is the same open file
// again for the next edge.
func TestBroker(t *testing.T) {
	var opened, again atomic.Int32
	var refuse atomic.Bool
	b := newBroker(map[string]opener{
		"tun": {
			open: func(spec json.RawMessage) (*os.File, error) {
				opened.Add(1)
				r, w, err := os.Pipe()
				if err != nil {
					return nil, err
				}
				defer w.Close()
				_, err = w.Write(spec)
				return r, err
			},
			again: func(json.RawMessage) error {
				again.Add(1)
				if refuse.Load() {
					return errors.New("no such device")
				}
				return nil
			},
		},
		"udp": {open: func(json.RawMessage) (*os.File, error) { return nil, errors.New("address in use") }},
	})
	defer b.close()
	edge := func() (*brokerClient, func()) {
		ours, theirs, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.FileConn(theirs)
		theirs.Close()
		if err != nil {
			t.Fatal(err)
		}
		var serving sync.WaitGroup
		serving.Go(func() {
			if err := b.serve(t.Context(), ours); err != nil {
				t.Error(err)
			}
		})
		client := &brokerClient{conn: c.(*net.UnixConn)}
		return client, func() { client.conn.Close(); serving.Wait(); ours.Close() }
	}
	first, stop := edge()
	f, err := first.file("tun", "patronus0", "hello")
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, err := f.Read(buf[:3]); err != nil || string(buf[:n]) != `"he` {
		t.Errorf("%q, %v", buf[:n], err)
	}
	f.Close()
	for kind, want := range map[string]string{"udp": "address in use", "disk": "unknown kind"} {
		if _, err := first.file(kind, "x", nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	stop()
	// The edge dies; the next one reads on where the first stopped.
	second, stop := edge()
	defer stop()
	if f, err = second.file("tun", "patronus0", "other"); err != nil {
		t.Fatal(err)
	}
	if n, err := f.Read(buf); err != nil || string(buf[:n]) != `llo"` || opened.Load() != 1 || again.Load() != 1 {
		t.Errorf("%q, %v, opened %d, again %d", buf[:n], err, opened.Load(), again.Load())
	}
	f.Close()
	// What is gone is opened anew.
	refuse.Store(true)
	if f, err = second.file("tun", "patronus0", "new"); err != nil {
		t.Fatal(err)
	}
	if n, _ := f.Read(buf); string(buf[:n]) != `"new"` || opened.Load() != 2 {
		t.Errorf("%q, opened %d", buf[:n], opened.Load())
	}
	f.Close()
}
