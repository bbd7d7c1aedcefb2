package tunnel

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/time/rate"
	"golang.zx2c4.com/wireguard/device"
)

// deviceLogger passes what the device says to l, for debugging only: it calls
// an error what is a matter of course (no endpoint yet, an uplink that is
// away), and some of its lines follow from single packets of strangers. They
// are formatted only if somebody listens, and at most 20 a second pass.
func deviceLogger(l *slog.Logger, uplink string) *device.Logger {
	limit := rate.NewLimiter(rate.Every(time.Second/20), 100)
	logf := func(format string, args ...any) {
		if l.Enabled(context.Background(), slog.LevelDebug) && limit.Allow() {
			l.Debug("device", "uplink", uplink, "err", fmt.Sprintf(format, args...))
		}
	}
	return &device.Logger{Verbosef: logf, Errorf: logf}
}
