package pid1

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watchdogSeconds is how long the machine may hang before it is restarted.
const watchdogSeconds = 60

// watchdog keeps the hardware's watchdog fed, or the kernel's own where there
// is none, as long as the first process does its work. It stays armed when the
// machine stops: what hangs then is restarted too.
func (s *system) watchdog(ctx context.Context) error {
	var dev *os.File
	for try := 0; dev == nil; try++ {
		f, err := os.OpenFile("/dev/watchdog", os.O_WRONLY, 0)
		switch {
		case err == nil:
			dev = f
		case try > 60:
			return fmt.Errorf("no watchdog: %w", err)
		case s.board.booted():
			// Devices were looked through and none has one.
			if err := s.modules.add("softdog"); err != nil {
				return err
			}
		}
		if dev == nil && !pause(ctx, 500*time.Millisecond) {
			return ctx.Err()
		}
	}
	// WDIOC_SETTIMEOUT; a device with a fixed time keeps that.
	_ = unix.IoctlSetPointerInt(int(dev.Fd()), 0xc0045706, watchdogSeconds)
	for {
		if s.board.alive(time.Now()) {
			if _, err := dev.Write([]byte{0}); err != nil {
				return err
			}
		}
		if !pause(ctx, 5*time.Second) {
			return ctx.Err()
		}
	}
}

// booted reports whether the devices that were there have their modules.
func (b *board) booted() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.facts.Booted
}
