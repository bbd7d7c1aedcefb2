package pid1

import (
	"context"
	"os/exec"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// children are the processes that we wait for ourselves. All others that end
// were left to us by their parents, and are only reaped.
type children struct {
	mu  sync.Mutex
	own map[int]bool
}

func newChildren() *children { return &children{own: map[int]bool{}} }

// run starts a program and waits for it. When ctx ends it gets SIGTERM, and
// SIGKILL ten seconds later.
func (c *children) run(ctx context.Context, cmd *exec.Cmd) error {
	c.mu.Lock() // reap must not see it before it is ours
	err := cmd.Start()
	if err != nil {
		c.mu.Unlock()
		return err
	}
	pid := cmd.Process.Pid
	c.own[pid] = true
	c.mu.Unlock()
	stop := context.AfterFunc(ctx, func() {
		// An error means that it has ended meanwhile.
		_ = cmd.Process.Signal(syscall.SIGTERM)
		time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
	})
	defer stop()
	err = cmd.Wait()
	c.mu.Lock()
	delete(c.own, pid)
	c.mu.Unlock()
	return err
}

// reap takes the exit status of orphans, up to the first child of our own:
// that one's waiter will take it, and the next SIGCHLD or tick goes on.
func (c *children) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		// si_pid stands after three ints and their padding (asm-generic/siginfo.h).
		pid := int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), 16)))
		if err != nil || pid == 0 || c.own[pid] {
			return
		}
		if _, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err != nil {
			return
		}
	}
}
