package lan

import (
	"errors"
	"fmt"
	"net"
	"os"
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

// sendWait is how long a full device is waited for before packets are dropped,
// once per stall: a link that stands still must not hold up the others.
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
}

func newDevice(fd int, name string) (*device, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	file := os.NewFile(uintptr(fd), name)
	conn, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return &device{file: file, conn: conn}, nil
}

// control runs f with the descriptor, which stays valid until f returns.
func (d *device) control(f func(fd uintptr)) error { return d.closed(d.conn.Control(f)) }

// read calls f until it returns true, waiting for readability in between. An
// error other than net.ErrClosed means that the poller has nothing left to wait
// for.
func (d *device) read(f func(fd uintptr) bool) error {
	err := d.closed(d.conn.Read(f))
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}

func (d *device) closed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return net.ErrClosed
	}
	return err
}

func (d *device) close() error {
	if err := d.closed(d.file.Close()); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
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
