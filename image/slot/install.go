package slot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"patronus/image/release"
)

// ErrOnTrial means that the running image has not proved itself: updating now
// would remove the one that has.
var ErrOnTrial = errors.New("the running image is still on trial: wait until it is blessed")

// ErrGivenUp means that this image was tried here and did not work.
var ErrGivenUp = errors.New("this image was given up before")

// Dir is the directory of the images. Every call is durable when it returns,
// except that a crash during Create leaves any part of the file.
type Dir interface {
	List() ([]string, error)
	Remove(name string) error
	Rename(from, to string) error
	// Create writes a new file.
	Create(name string, r io.Reader) error
	Open(name string) (io.ReadCloser, error)
}

// Machine is what an update is installed on.
type Machine struct {
	Dir     Dir
	Running release.Info
	Trusted release.Keys
	State   *State
	// Save makes State durable.
	Save func(*State) error
}

// Options of an update.
type Options struct {
	Tries  int // at least 1
	DryRun bool
	// NotAgain refuses an image that was given up: for updates that nobody asked
	// for by hand, which would otherwise be tried for ever.
	NotAgain bool
	// Expect is what the trial must reach to be kept.
	Expect Expectation
	Now    time.Time
	// Progress is called with bytes done and in all; nil is fine.
	Progress func(done, total int64)
}

// Install verifies an update file and puts its image into the other slot, to be
// tried at the next start. An error leaves what ran before as it was.
func (m *Machine) Install(ctx context.Context, update io.Reader, o Options) (*release.Manifest, error) {
	manifest, payload, err := release.Open(update, m.Trusted)
	if err != nil {
		return nil, err
	}
	if err := manifest.Check(m.Running, m.State.Floor); err != nil {
		return manifest, err
	}
	if f := m.State.Failed; o.NotAgain && f != nil && f.Seq == manifest.Seq {
		return manifest, fmt.Errorf("%w: %s", ErrGivenUp, f.Why)
	}
	names, err := m.Dir.List()
	if err != nil {
		return manifest, fmt.Errorf("slots: %w", err)
	}
	own, err := Own(Entries(names), m.Running.Seq)
	if err != nil {
		return manifest, err
	}
	if own.Trial {
		return manifest, ErrOnTrial
	}
	if o.DryRun {
		_, err := io.Copy(io.Discard, m.watched(ctx, payload, manifest.Size, o.Progress))
		return manifest, err
	}
	for _, n := range names {
		if e, ok := Parse(n); n == unfinished || ok && e != own {
			if err := m.Dir.Remove(n); err != nil {
				return manifest, fmt.Errorf("empty the other slot: %w", err)
			}
		}
	}
	if err := m.Dir.Create(unfinished, m.watched(ctx, payload, manifest.Size, o.Progress)); err != nil {
		return manifest, errors.Join(fmt.Errorf("write the image: %w", err), m.Dir.Remove(unfinished))
	}
	// What the disk gives back counts, not what it was given.
	if err := m.readBack(manifest); err != nil {
		return manifest, errors.Join(fmt.Errorf("read the image back: %w", err), m.Dir.Remove(unfinished))
	}
	m.State.Trial = &Trial{Seq: manifest.Seq, Version: manifest.Version, From: m.Running.Seq, InstalledAt: o.Now.UTC(), Expect: o.Expect}
	if err := m.Save(m.State); err != nil {
		return manifest, err
	}
	next := Entry{Seq: manifest.Seq, Trial: true, Left: max(o.Tries, 1)}
	if err := m.Dir.Rename(unfinished, next.Name()); err != nil {
		return manifest, fmt.Errorf("name the image: %w", err)
	}
	return manifest, nil
}

func (m *Machine) readBack(manifest *release.Manifest) error {
	f, err := m.Dir.Open(unfinished)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return manifest.Verify(f)
}

func (m *Machine) watched(ctx context.Context, r io.Reader, total int64, progress func(done, total int64)) io.Reader {
	return &watched{ctx: ctx, r: r, total: total, progress: progress}
}

// watched is a reader that tells how far it is, and stops with its context.
type watched struct {
	ctx         context.Context //nolint:containedctx // of one call of Install, which this reader does not outlive
	r           io.Reader
	done, total int64
	progress    func(done, total int64)
}

func (w *watched) Read(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := w.r.Read(b)
	w.done += int64(n)
	if w.progress != nil && n > 0 {
		w.progress(w.done, w.total)
	}
	return n, err
}

// Bless keeps the running image: it is the one to start from now on, and no
// older one is accepted any more.
func (m *Machine) Bless() error {
	names, err := m.Dir.List()
	if err != nil {
		return fmt.Errorf("slots: %w", err)
	}
	entries := Entries(names)
	own, err := Own(entries, m.Running.Seq)
	if err != nil {
		return err
	}
	good := Entry{Seq: own.Seq}
	if own.Trial && !has(entries, good) {
		if err := m.Dir.Rename(own.Name(), good.Name()); err != nil {
			return fmt.Errorf("bless: %w", err)
		}
	}
	if m.State.Floor >= own.Seq && m.State.Trial == nil {
		return nil
	}
	m.State.Floor = max(m.State.Floor, own.Seq)
	m.State.Trial, m.State.Failed = nil, nil
	return m.Save(m.State)
}

// Reject gives the running image up: the loader will start the other one.
func (m *Machine) Reject(why string) error {
	names, err := m.Dir.List()
	if err != nil {
		return fmt.Errorf("slots: %w", err)
	}
	own, err := Own(Entries(names), m.Running.Seq)
	if err != nil {
		return err
	}
	if !own.Trial {
		return nil // it is the best there is
	}
	m.State.Failed = &Failure{Seq: own.Seq, Why: why}
	if m.State.Trial != nil {
		m.State.Failed.Version = m.State.Trial.Version
	}
	if err := m.Save(m.State); err != nil {
		return err
	}
	bad := Entry{Seq: own.Seq, Trial: true, Done: own.Done + own.Left}
	if bad == own {
		return nil
	}
	if err := m.Dir.Rename(own.Name(), bad.Name()); err != nil {
		return fmt.Errorf("reject: %w", err)
	}
	return nil
}

// Tidy is called once after a start. It removes what a power cut left behind,
// notes an update that has failed, and reports whether the running image is on
// trial.
func (m *Machine) Tidy() (trial bool, err error) {
	names, err := m.Dir.List()
	if err != nil {
		return false, fmt.Errorf("slots: %w", err)
	}
	entries := Entries(names)
	own, err := Own(entries, m.Running.Seq)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		// A rename that was cut leaves both names; the loader's counting is
		// confused by two of one image (systemd#33504).
		if e.Seq == own.Seq && e != own {
			drop := e
			if e == (Entry{Seq: own.Seq}) {
				drop, own = own, e
			}
			if err := m.Dir.Remove(drop.Name()); err != nil {
				return false, fmt.Errorf("tidy: %w", err)
			}
		}
	}
	for _, n := range names {
		if n == unfinished {
			if err := m.Dir.Remove(n); err != nil {
				return false, fmt.Errorf("tidy: %w", err)
			}
		}
	}
	if t := m.State.Trial; t != nil && t.Seq != own.Seq {
		// The update was installed and something else runs: it has failed, unless
		// the power went before it got its name.
		why := "it did not start well: it crashed, hung or lost power each time it was tried"
		if !has(entries, Entry{Seq: t.Seq, Trial: true}) && !tried(entries, t.Seq) {
			why = "the update was interrupted before it was complete"
		}
		if m.State.Failed == nil || m.State.Failed.Seq != t.Seq {
			m.State.Failed = &Failure{Seq: t.Seq, Version: t.Version, Why: why}
		}
		m.State.Trial = nil
		if err := m.Save(m.State); err != nil {
			return false, err
		}
	}
	return own.Trial, nil
}

func has(entries []Entry, want Entry) bool {
	for _, e := range entries {
		if e == want {
			return true
		}
	}
	return false
}

func tried(entries []Entry, seq uint64) bool {
	for _, e := range entries {
		if e.Seq == seq {
			return true
		}
	}
	return false
}
