package cli

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// rawKeys sends single key presses until ctx ends, without echo and without
// waiting for a line. restore gives the terminal back as it was.
func rawKeys(ctx context.Context, in io.Reader, keys chan<- byte) (restore func(), err error) {
	f, ok := in.(*os.File)
	if !ok {
		return nil, errors.New("not a terminal")
	}
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	raw := *old
	raw.Lflag &^= unix.ICANON | unix.ECHO
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 0, 1
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var b [1]byte
		// VTIME makes read return every 100 ms, so that ctx is seen.
		for ctx.Err() == nil {
			n, err := unix.Read(fd, b[:])
			if err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
			if n != 1 {
				continue
			}
			select {
			case keys <- b[0]:
			case <-ctx.Done():
			}
		}
	}()
	return func() {
		<-done
		_ = unix.IoctlSetTermios(fd, unix.TCSETS, old)
	}, nil
}
