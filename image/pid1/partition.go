package pid1

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"patronus/image/gpt"
	"patronus/image/provision"
)

const (
	espName  = "patronus-esp"
	dataName = "patronus-data"
)

// mountBasics mounts what every process needs, and opens the console.
func mountBasics() (console *os.File, err error) {
	for _, m := range []struct {
		fs, dir string
		flags   uintptr
		data    string
	}{
		{"devtmpfs", "/dev", unix.MS_NOSUID, "mode=755"},
		{"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", "/sys", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"tmpfs", "/run", unix.MS_NOSUID | unix.MS_NODEV, "mode=755,size=16m"},
		{"tmpfs", "/tmp", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777,size=64m"},
	} {
		if e := unix.Mount(m.fs, m.dir, m.fs, m.flags, m.data); e != nil && !errors.Is(e, unix.EBUSY) {
			err = errors.Join(err, fmt.Errorf("%s: %w", m.dir, e))
		}
	}
	console, e := os.OpenFile("/dev/console", os.O_WRONLY|unix.O_NOCTTY, 0)
	return console, errors.Join(err, e)
}

// block is one block device or partition.
type block struct {
	device    string // /dev/vda2
	name      string // of the partition, from the GPT
	parent    string // vda
	partition int
}

func blocks() []block {
	dirs, err := filepath.Glob("/sys/class/block/*")
	if err != nil {
		return nil
	}
	var all []block
	for _, dir := range dirs {
		text, err := os.ReadFile(filepath.Join(dir, "uevent"))
		if err != nil {
			continue
		}
		b := block{}
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch key {
			case "DEVNAME":
				b.device = "/dev/" + value
			case "PARTNAME":
				b.name = value
			case "PARTN":
				b.partition, _ = strconv.Atoi(value)
			}
		}
		if b.partition > 0 {
			if real, err := filepath.EvalSymlinks(dir); err == nil {
				b.parent = filepath.Base(filepath.Dir(real))
			}
		}
		all = append(all, b)
	}
	return all
}

// findPartition waits for a partition of our disk.
func findPartition(ctx context.Context, name string, patience time.Duration) (block, error) {
	deadline := time.Now().Add(patience)
	for {
		for _, b := range blocks() {
			if b.name == name {
				return b, nil
			}
		}
		if time.Now().After(deadline) || !pause(ctx, 50*time.Millisecond) {
			return block{}, fmt.Errorf("no partition %s on any disk", name)
		}
	}
}

// growData moves the end of the data partition to the end of its disk. The
// copy of the table at the new end is written first: whenever the power goes,
// one of the two is whole.
func growData(b block) error {
	disk, err := os.OpenFile("/dev/"+b.parent, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = disk.Close() }()
	head := make([]byte, gpt.HeadSectors*gpt.SectorSize)
	if _, err := disk.ReadAt(head, 0); err != nil {
		return err
	}
	table, err := gpt.Parse(head)
	if err != nil {
		return err
	}
	size, err := disk.Seek(0, 2)
	if err != nil {
		return err
	}
	grown, more := table.Grow(uint64(size) / gpt.SectorSize)
	if !more {
		return nil
	}
	for _, p := range []struct {
		data []byte
		at   int64
	}{{grown.Tail(), int64(grown.Sectors-gpt.TailSectors) * gpt.SectorSize}, {grown.Head(), 0}} {
		if _, err := disk.WriteAt(p.data, p.at); err != nil {
			return err
		}
		if err := disk.Sync(); err != nil {
			return err
		}
	}
	for _, p := range grown.Partitions {
		if p.Name == dataName {
			return resizePartition(disk, b.partition, int64(p.First), int64(p.Last-p.First+1))
		}
	}
	return nil
}

// resizePartition tells the kernel (BLKPG, linux/blkpg.h).
func resizePartition(disk *os.File, number int, first, sectors int64) error {
	part := struct {
		start, length int64
		number        int32
		names         [128]byte
	}{start: first * gpt.SectorSize, length: sectors * gpt.SectorSize, number: int32(number)}
	arg := struct {
		op, flags, size int32
		data            unsafe.Pointer
	}{op: 3 /* BLKPG_RESIZE_PARTITION */, size: int32(unsafe.Sizeof(part)), data: unsafe.Pointer(&part)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, disk.Fd(), 0x1269 /* BLKPG */, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return fmt.Errorf("resize partition %d: %w", number, errno)
	}
	return nil
}

// mountData mounts the data partition, and lets its file system fill it.
func mountData(b block) error {
	if err := unix.Mount(b.device, dataDir, "ext4", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount %s: %w", b.device, err)
	}
	dev, err := os.Open(b.device)
	if err != nil {
		return err
	}
	defer func() { _ = dev.Close() }()
	size, err := dev.Seek(0, 2)
	if err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dataDir, &st); err != nil {
		return err
	}
	if want := uint64(size) / 4096; want > st.Blocks+st.Blocks/8+4096 {
		dir, err := os.Open(dataDir)
		if err != nil {
			return err
		}
		defer func() { _ = dir.Close() }()
		// EXT4_IOC_RESIZE_FS, in blocks
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), 0x40086610, uintptr(unsafe.Pointer(&want))); errno != 0 {
			return fmt.Errorf("grow the file system to %d MiB: %w", size>>20, errno)
		}
	}
	return nil
}

// mountESP mounts the EFI partition read-only.
func mountESP(b block, dir string) error {
	if err := unix.Mount(b.device, dir, "vfat", unix.MS_RDONLY|unix.MS_DIRSYNC|unix.MS_NOATIME|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "umask=077"); err != nil {
		return fmt.Errorf("mount %s: %w", b.device, err)
	}
	return nil
}

// withVolumes calls f with each volume of a label, mounted read-only.
func withVolumes(labels []string, f func(dir string) error) error {
	const at = "/media"
	var failed error
	head := make([]byte, provision.LabelSize)
	for _, b := range blocks() {
		if b.name == espName || b.name == dataName || strings.HasPrefix(b.device, "/dev/loop") || strings.HasPrefix(b.device, "/dev/ram") {
			continue
		}
		dev, err := os.Open(b.device)
		if err != nil {
			continue // a drive without a medium
		}
		n, _ := dev.ReadAt(head, 0)
		_ = dev.Close()
		kind, label := provision.Label(head[:n])
		wanted := false
		for _, l := range labels {
			wanted = wanted || kind != "" && strings.EqualFold(l, label)
		}
		if !wanted {
			continue
		}
		if err := unix.Mount(b.device, at, kind, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			failed = errors.Join(failed, fmt.Errorf("mount %s: %w", b.device, err))
			continue
		}
		failed = errors.Join(failed, f(at), unix.Unmount(at, 0))
	}
	return failed
}
