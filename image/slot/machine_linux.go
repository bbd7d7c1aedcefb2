package slot

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"patronus/image/release"
)

// Paths are where an appliance has what belongs to its images.
type Paths struct {
	ESP   string // mount point of the EFI partition, read-only between updates
	State string // file of State
	Image string // image.json, which the image carries
	Keys  string // public keys, which the image carries
	Lock  string
}

// DefaultPaths are those of an appliance that was started from an image.
func DefaultPaths() Paths {
	return Paths{
		ESP: "/boot", State: "/var/lib/patronus/image/state.json",
		Image: "/lib/patronus/image.json", Keys: "/lib/patronus/image.pub", Lock: "/run/patronus-image.lock",
	}
}

// Image is what an image knows of itself.
type Image struct {
	release.Info
	Epoch  int64  `json:"epoch"` // time of the sources, Unix seconds
	Kernel string `json:"kernel"`
}

// LoadImage reads image.json.
func (p Paths) LoadImage() (Image, error) {
	var i Image
	text, err := os.ReadFile(p.Image)
	if err != nil {
		return i, fmt.Errorf("not an appliance that was started from an image: %w", err)
	}
	if err := json.Unmarshal(text, &i); err != nil {
		return i, fmt.Errorf("%s: %w", p.Image, err)
	}
	return i, nil
}

// Machine is the running appliance, for Install, Bless and the rest. The
// caller holds the lock ([Paths.Locked]) as long as it uses it.
func (p Paths) Machine() (*Machine, error) {
	image, err := p.LoadImage()
	if err != nil {
		return nil, err
	}
	keys, err := release.LoadKeys(p.Keys)
	if err != nil {
		return nil, err
	}
	state, err := LoadState(p.State)
	if err != nil {
		return nil, err
	}
	return &Machine{
		Dir: OSDir(filepath.Join(p.ESP, "EFI/Linux")), Running: image.Info, Trusted: keys, State: state,
		Save: func(s *State) error { return SaveState(p.State, s) },
	}, nil
}

// ErrBusy means that another update is running.
var ErrBusy = errors.New("another update is running")

// Locked runs f while nobody else changes the slots, with the EFI partition
// writable. It is ErrBusy if somebody does.
func (p Paths) Locked(f func() error) (err error) {
	lock, err := os.OpenFile(p.Lock, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	defer func() { _ = lock.Close() }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return ErrBusy
		}
		return fmt.Errorf("lock: %w", err)
	}
	const flags = unix.MS_REMOUNT | unix.MS_DIRSYNC | unix.MS_NOATIME | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("", p.ESP, "", flags, ""); err != nil {
		return fmt.Errorf("make the EFI partition writable: %w", err)
	}
	defer func() {
		if e := unix.Mount("", p.ESP, "", flags|unix.MS_RDONLY, ""); e != nil {
			err = errors.Join(err, fmt.Errorf("make the EFI partition read-only: %w", e))
		}
	}()
	return f()
}
