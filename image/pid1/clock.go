package pid1

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/beevik/ntp"
	"golang.org/x/sys/unix"
)

func clockFile() string { return filepath.Join(dataDir, "etc", "clock") }

// floor is the earliest time that it can be: no clock is behind the sources of
// this image, nor behind what it has been before. A handshake's timestamp must
// not fall (WireGuard, 5.1).
func floor(now time.Time, epoch int64, kept time.Time) time.Time {
	least := time.Unix(epoch, 0)
	if kept.After(least) {
		least = kept
	}
	if now.Before(least) {
		return least
	}
	return now
}

// setClock lifts a clock that is behind.
func setClock(epoch int64) error {
	var kept time.Time
	if info, err := os.Stat(clockFile()); err == nil {
		kept = info.ModTime()
	}
	now := time.Now()
	if at := floor(now, epoch, kept); at.After(now) {
		return stepClock(at)
	}
	return nil
}

func stepClock(at time.Time) error {
	tv := unix.NsecToTimeval(at.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}

func saveClock(now time.Time) {
	if err := os.WriteFile(clockFile(), nil, 0o600); err == nil {
		_ = os.Chtimes(clockFile(), now, now)
	}
}

// keepClock keeps the time of day on disk, and asks the time servers that
// DHCP or network.yaml name.
func (s *system) keepClock(ctx context.Context) error {
	wait := 5 * time.Second
	for {
		if !pause(ctx, wait) {
			return ctx.Err()
		}
		wait = 10 * time.Minute
		for _, server := range s.board.snapshot().NTP {
			r, err := ntp.QueryWithOptions(server, ntp.QueryOptions{Timeout: 3 * time.Second})
			if err == nil {
				err = r.Validate()
			}
			s.report("time server "+server, err)
			if err != nil {
				continue
			}
			if r.ClockOffset.Abs() > 100*time.Millisecond {
				s.report("clock", stepClock(time.Now().Add(r.ClockOffset)))
			}
			break
		}
		if s.board.snapshot().Data {
			saveClock(time.Now())
		}
	}
}
