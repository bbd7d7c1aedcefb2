package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"patronus/appliance"
	"patronus/appliance/lab"
)

// labBoardSites is up to how many sites a lab has a dashboard by itself: each
// site keeps a history of its own.
const labBoardSites = 12

// labBoard is the dashboard of a lab; nil if it has none.
type labBoard struct {
	dir string // to be removed, "" for one that stays

	mu   sync.Mutex
	info *appliance.BoardInfo
}

// dashboard adds to o what a promoted hq needs.
func (c *labCmd) dashboard(o *lab.Options, log *slog.Logger) (*labBoard, error) {
	at := c.Promote
	switch {
	case at == "off" || at == "auto" && c.Sites > labBoardSites:
		return nil, nil
	case at == "auto":
		at = "127.0.0.1:8443"
		probe, err := net.Listen("tcp", at)
		if err != nil {
			at = "127.0.0.1:0"
		} else {
			probe.Close()
		}
	default:
		if _, _, err := net.SplitHostPort(at); err != nil {
			return nil, fmt.Errorf("%w: --promote %q: want an address as 127.0.0.1:8443, auto or off; it is always hq that is promoted", ErrUsage, at)
		}
	}
	b := &labBoard{}
	if o.Dir = c.Data; o.Dir == "" {
		dir, err := os.MkdirTemp("", "patronus-lab-")
		if err != nil {
			return nil, fmt.Errorf("lab: %w", err)
		}
		o.Dir, b.dir = dir, dir
	}
	o.Board = func(_, dir string) appliance.BoardOptions {
		return appliance.BoardOptions{Dir: dir, Listen: []string{at}, Logger: log, Started: func(i appliance.BoardInfo) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.info = &i
		}}
	}
	return b, nil
}

// promote makes hq the dashboard as soon as its node answers.
func (b *labBoard) promote(ctx context.Context, f *lab.Fabric) error {
	if b == nil {
		return nil
	}
	for {
		err := f.Sites[0].Promote(ctx, true)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// text is how to open the dashboard, "" while it is not there.
func (b *labBoard) text() string {
	if b == nil {
		return ""
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.info == nil || len(b.info.Addresses) == 0 {
		return ""
	}
	text := fmt.Sprintf("dashboard https://%s   certificate SHA-256 %s\n", b.info.Addresses[0], b.info.Fingerprint)
	if b.info.SetupCode != "" && time.Now().Before(b.info.SetupUntil) {
		text += fmt.Sprintf("first login: setup code %s, until %s\n", b.info.SetupCode, b.info.SetupUntil.Format(time.TimeOnly))
	}
	return text
}

func (b *labBoard) close() {
	if b != nil && b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
}
