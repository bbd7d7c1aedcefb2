package appliance

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// confine takes from this process what the node must not have: it may not gain
// privileges, and where the kernel has Landlock (5.13) it sees its own
// directory, the run directory and the system's time zones and certificates,
// but no keys. A kernel without Landlock leaves the uid to protect the keys.
func confine(dataDir string) error {
	own := filepath.Join(dataDir, "node")
	if err := os.MkdirAll(own, 0o700); err != nil {
		return err
	}
	// Landlock and no_new_privs are per thread: all threads, through the runtime.
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("no_new_privs: %w", errno)
	}
	const write = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK
	const read = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	handled := unix.LandlockRulesetAttr{Handled_access_fs: write | read | unix.LANDLOCK_ACCESS_FS_EXECUTE}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&handled)), unsafe.Sizeof(handled.Handled_access_fs), 0)
	if errors.Is(errno, unix.ENOSYS) || errors.Is(errno, unix.EOPNOTSUPP) {
		return nil
	}
	if errno != 0 {
		return fmt.Errorf("landlock: %w", errno)
	}
	defer unix.Close(int(fd))
	for path, access := range map[string]uint64{
		own: write | read, filepath.Join(dataDir, "run"): write | read,
		"/etc/ssl": read, "/usr/share/zoneinfo": read, "/etc/localtime": unix.LANDLOCK_ACCESS_FS_READ_FILE,
		"/proc/self": read, "/etc/resolv.conf": unix.LANDLOCK_ACCESS_FS_READ_FILE,
	} {
		if err := allow(int(fd), path, access); err != nil {
			return err
		}
	}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return fmt.Errorf("landlock: %w", errno)
	}
	return nil
}

// allow adds a path to a Landlock ruleset; one that does not exist is no loss.
func allow(ruleset int, path string, access uint64) error {
	dir, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(dir)
	rule := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(dir)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	runtime.KeepAlive(&rule)
	if errno != 0 && !errors.Is(errno, unix.EINVAL) {
		return fmt.Errorf("landlock %s: %w", path, errno)
	}
	return nil
}

// raise makes effective what is permitted of the two capabilities that opening
// descriptors needs. In a container that runs as a user they come with the file,
// which permits them only: docker gives a user's process none otherwise.
func raise() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&head, &have[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	missing := have[0].Permitted &^ have[0].Effective & (1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW)
	if missing == 0 {
		return nil
	}
	have[0].Effective |= missing
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&have[0])), 0)
	runtime.KeepAlive(&have)
	if errno != 0 {
		return fmt.Errorf("capabilities: %w", errno)
	}
	return nil
}

// shed keeps of root's capabilities only the two that the edge may need: raw
// sockets for a packet port, and large socket buffers and link state for the
// uplinks. Without privileges there is nothing to shed.
func shed() error {
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("no_new_privs: %w", errno)
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&head, &have[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	const keep = uint32(1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW)
	want := [2]unix.CapUserData{{Effective: have[0].Effective & keep, Permitted: have[0].Permitted & keep}}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&want[0])), 0)
	runtime.KeepAlive(&want)
	if errno != 0 {
		return fmt.Errorf("capabilities: %w", errno)
	}
	return nil
}
