package benchstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"patronus/appliance/ledger"
	"patronus/appliance/store"
)

// fullSize is the file system that is filled, bytes.
const fullSize = "640m"

// Full fills a small file system below a store and a ledger that are open, in a
// process with a mount namespace of its own. It needs root.
func Full(ctx context.Context, dir string) (Finding, error) {
	f := Finding{Test: "disk full"}
	if os.Getuid() != 0 {
		f.Skipped = "mounting a small file system needs root"
		return f, nil
	}
	cmd := again(ctx, "full", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.Output()
	f.Runs = 1
	if err != nil {
		f.Died++
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			out = exit.Stderr
		}
		f.note("%v: %.900s", err, out)
		return f, ctx.Err()
	}
	var notes []string
	if err := decode(out, &notes); err != nil {
		return f, err
	}
	for _, n := range notes {
		f.Wrong++
		f.note("%s", n)
	}
	if len(notes) == 0 {
		f.Right++
	}
	return f, nil
}

// full is the child of Full: what it returns was not as it should be.
func full(dir string) (notes []string) {
	bad := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+fullSize)); err != nil {
		bad("mount: %v", err)
		return notes
	}
	clock := time.UnixMilli(tortureBase)
	o := store.Options{Keep: tortureKeep, Now: func() time.Time { return clock }}
	s, err := store.Open(filepath.Join(dir, "store"), o)
	if err != nil {
		bad("open: %v", err)
		return notes
	}
	l, err := ledger.Open(filepath.Join(dir, "ledger"))
	if err != nil {
		bad("open: %v", err)
		return notes
	}
	ctx, tick := context.Background(), int64(0)
	var b store.Batch
	write := func() (error, error) {
		b = tortureBatch(b, tick)
		clock = time.UnixMilli(b.At)
		err := s.Append(ctx, b)
		if err == nil {
			tick++
		}
		return err, l.Update(ctx, func(tx *ledger.Tx) error { return tx.Put("n", fmt.Append(nil, tick)) })
	}
	read := func(when string) {
		n := 0
		for sm, err := range s.Samples(series(3), 0, 1<<50) {
			if err != nil || sm.V[0] != tortureValue(int64(n), 3, 0) {
				bad("%s: sample %d: %v %v", when, n, sm.V[0], err)
				return
			}
			n++
		}
		if int64(n) != tick {
			bad("%s: %d samples of %d", when, n, tick)
		}
		var v []byte
		if err := l.View(func(tx *ledger.Tx) (err error) { v, err = tx.Get("n"); return err }); err != nil || len(v) == 0 {
			bad("%s: ledger: %q, %v", when, v, err)
		}
	}
	for range 300 {
		if e1, e2 := write(); e1 != nil || e2 != nil {
			bad("before: %v, %v", e1, e2)
			return notes
		}
	}
	read("before")
	filler := filepath.Join(dir, "filler")
	for round := range 2 {
		if err := fill(filler); err != nil {
			bad("fill: %v", err)
		}
		if e1, e2 := write(); !errors.Is(e1, store.ErrNoSpace) || !errors.Is(e2, ledger.ErrFull) {
			bad("full: %v, %v", e1, e2)
		}
		if err := s.Seal(); err != nil && !errors.Is(err, store.ErrNoSpace) {
			bad("seal when full: %v", err)
		}
		read("full")
		if err := os.Remove(filler); err != nil {
			bad("%v", err)
		}
		for range 100 {
			if e1, e2 := write(); e1 != nil || e2 != nil {
				bad("round %d, with space again: %v, %v", round, e1, e2)
				break
			}
		}
		read("with space again")
	}
	// Closing and opening on a full disk: either it reads, or it says why not.
	if err := fill(filler); err != nil {
		bad("fill: %v", err)
	}
	if err := errors.Join(s.Close(), l.Close()); err != nil {
		bad("close when full: %v", err)
	}
	if again, err := store.Open(filepath.Join(dir, "store"), o); err == nil {
		if err := again.Close(); err != nil {
			bad("close when full: %v", err)
		}
	} else if !errors.Is(err, store.ErrNoSpace) {
		bad("open when full: %v", err)
	}
	if again, err := ledger.Open(filepath.Join(dir, "ledger")); err == nil {
		if err := again.Close(); err != nil {
			bad("close the ledger when full: %v", err)
		}
	} else if !errors.Is(err, ledger.ErrFull) {
		bad("open the ledger when full: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		bad("%v", err)
	}
	if s, err = store.Open(filepath.Join(dir, "store"), o); err != nil {
		bad("open: %v", err)
		return notes
	}
	if l, err = ledger.Open(filepath.Join(dir, "ledger")); err != nil {
		bad("open: %v", err)
		return notes
	}
	read("opened again")
	if err := errors.Join(s.Close(), l.Close()); err != nil {
		bad("close: %v", err)
	}
	return notes
}

// fill takes all the space there is.
func fill(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close() // what it holds does not matter
	b := make([]byte, 1<<20)
	for len(b) > 0 {
		if _, err := f.Write(b); errors.Is(err, unix.ENOSPC) || errors.Is(err, io.ErrShortWrite) {
			b = b[:len(b)/2]
		} else if err != nil {
			return err
		}
	}
	return nil
}
