package store

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// smallDisk, if set, tells the child process of TestDiskFull where to mount a
// file system of 64 MB.
const smallDisk = "STORE_SMALL_DISK"

// TestDiskFull fills up a real file system, first by the store, then by
// somebody else: no fault, reads go on, also after opening again, and writes do
// when there is room.
func TestDiskFull(t *testing.T) {
	if dir := os.Getenv(smallDisk); dir != "" {
		fillDisk(t, dir)
		return
	}
	cmd := exec.CommandContext(context.Background(), os.Args[0], "-test.run=^TestDiskFull$", "-test.v")
	cmd.Env = append(os.Environ(), smallDisk+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) || strings.Contains(string(out), "no mount") {
		t.Skip("this machine gives no namespaces to mount a small disk in")
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func fillDisk(t *testing.T, dir string) {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal("no mount:", err)
	}
	const paths = 200
	c := &clock{noon}
	options := Options{Now: c.now, Free: statfs}
	s, err := Open(filepath.Join(dir, "s"), options)
	if err != nil {
		t.Fatal(err)
	}
	g := newGenerator(paths)
	var b Batch
	hours := int64(0)
	for ; err == nil; hours++ {
		var all Batch
		for at := noon + hours*hourMs; at < noon+(hours+1)*hourMs; at += 10_000 {
			g.batch(&b, at)
			all.Samples = append(all.Samples, b.Samples...)
		}
		all.Site, all.At = b.Site, b.At
		c.ms = noon + (hours+1)*hourMs + minuteMs
		if err = s.Append(context.Background(), all); err != nil {
			break
		}
		if err := s.Seal(); err != nil && !errors.Is(err, ErrNoSpace) {
			t.Fatal(err)
		}
	}
	if !errors.Is(err, ErrNoSpace) || hours == 0 {
		t.Fatalf("after %d hours: %v", hours, err)
	}
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = filler.Write(make([]byte, 64<<10))
	}
	if err := filler.Close(); err != nil {
		t.Fatal(err)
	}
	check := func(s *Store) {
		t.Helper()
		n := 0
		for _, err := range s.Samples(g.series[3], noon, c.ms) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != int(hours)*360 {
			t.Fatalf("%d samples of %d hours", n, hours)
		}
	}
	check(s)
	if err := s.Seal(); !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(filepath.Join(dir, "s"), options); err != nil {
		t.Fatal(err)
	}
	check(s)
	g.batch(&b, c.ms)
	if err := s.Append(context.Background(), b); !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(context.Background(), b); err != nil {
		t.Fatal(err)
	}
	if err := s.Seal(); err != nil {
		t.Fatal(err)
	}
	check(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
