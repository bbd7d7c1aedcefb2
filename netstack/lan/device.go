package lan

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Errors of the package.
var (
	// ErrGone is returned by Read and Write when the interface has vanished.
	ErrGone = errors.New("interface is gone")
	// ErrDescriptor is returned when a handed-over descriptor is not what the
	// port needs.
	ErrDescriptor = errors.New("descriptor does not fit the port")
)

// sendWait is how long a full socket is waited for before packets are dropped.
const sendWait = 5 * time.Millisecond

// Opener gives a port its descriptor: the port's own default opens it, a
// supervisor that keeps descriptors over restarts hands one over.
type Opener interface {
	// Open returns a descriptor that the port then owns and closes.
	Open() (fd int, err error)
}

// Descriptor is an Opener that hands over a descriptor that is already open.
type Descriptor int

// Open implements Opener.
func (d Descriptor) Open() (int, error) { return int(d), nil }

// device is a non-blocking descriptor in the runtime's poller. Its reads and
// writes are raw system calls: they never block, so the scheduler need not hear
// of them; only waiting goes through the poller, where Close ends it.
type device struct {
	file *os.File
	conn syscall.RawConn
	// gone is set before the file is closed: the poller has no error that is
	// exported for it.
	gone atomic.Bool
}

func newDevice(fd int, name string) (*device, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	file := os.NewFile(uintptr(fd), name)
	conn, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return &device{file: file, conn: conn}, nil
}

// control runs f with the descriptor, which stays valid until f returns. Its
// error is net.ErrClosed.
func (d *device) control(f func(fd uintptr)) error {
	if d.conn.Control(f) != nil {
		return net.ErrClosed
	}
	return nil
}

// read calls f until it returns true, waiting for readability in between. It
// returns net.ErrClosed, os.ErrDeadlineExceeded if the file has a deadline, or
// ErrGone if the poller has nothing left to wait for.
func (d *device) read(f func(fd uintptr) bool) error {
	err := d.conn.Read(f)
	switch {
	case err == nil:
		return nil
	case d.gone.Load():
		return net.ErrClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return err
	}
	return fmt.Errorf("%w: %w", ErrGone, err)
}

// close ends a read and waits for a write.
func (d *device) close() error {
	if d.gone.Swap(true) {
		return nil
	}
	return d.file.Close()
}

// waitWritable waits for at most sendWait and reports whether fd can be
// written to.
func waitWritable(fd uintptr) bool {
	set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(set, int(sendWait/time.Millisecond))
	return err == nil && n == 1 && set[0].Revents&unix.POLLOUT != 0
}

func rawRead(fd uintptr, b []byte) (int, unix.Errno) {
	n, _, e := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), e
}

func rawWritev(fd uintptr, iov []unix.Iovec) (int, unix.Errno) {
	n, _, e := unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
	return int(n), e
}

// iovec describes b, which must not be empty.
func iovec(b []byte) unix.Iovec {
	v := unix.Iovec{Base: &b[0]}
	v.SetLen(len(b))
	return v
}
