package appliance

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"patronus/appliance/agent"
	"patronus/configs"
	"patronus/netstack/path"
)

// A revision that a dashboard has sent is on trial until the site has reached the
// dashboard through it. Together these stay below the minute after which a site
// that was cut off is back.
const (
	// ConfirmWithin is how long a revision may take to prove itself.
	ConfirmWithin = 35 * time.Second
	// blameWithin is how long the old configuration is asked afterwards whether
	// the dashboard is there at all: WireGuard may need 15 s for a new session with
	// a peer that still has an old one.
	blameWithin = 20 * time.Second
	confirmDial = 3 * time.Second
	confirmLook = 200 * time.Millisecond
)

// ErrUnconfirmed is for a revision that was rolled back, where the dashboard
// could not be reached by the old configuration either: nobody knows whether the
// revision is bad. It may be tried again.
var ErrUnconfirmed = errors.New("revision was rolled back: the dashboard is not reached, with the old one neither")

// errEnding is for a revision whose trial the end of the edge cuts short.
var errEnding = errors.New("the edge ends before the revision has proved itself")

// try makes a revision the running one and keeps it once the dashboard that sent
// it was reached through it, and a path is up if one was up before. Otherwise
// the old one runs again; if that reaches the dashboard, the new one is marked as
// bad. A crash meanwhile has the same effect as a rollback: nothing was kept.
// mu is held.
func (e *Edge) try(rev *configs.Revision, cfg *configs.Config, signed []byte) error {
	old, oldNumber := e.config, e.current.Load().Revision
	before := e.pathsUp()
	if err := e.apply(rev.Number, cfg); err != nil {
		return err
	}
	why := e.confirm(rev.Controller.Site, before, e.confirmWithin)
	if why == nil {
		_, why = e.store.Save(signed)
		if why == nil {
			return nil
		}
		return errors.Join(why, e.apply(oldNumber, old))
	}
	if errors.Is(why, errEnding) {
		return why // nothing was kept
	}
	e.log.Error("revision rolled back", "rev", rev.Number, "err", why)
	if err := e.apply(oldNumber, old); err != nil {
		return fmt.Errorf("roll back to revision %d: %w", oldNumber, err)
	}
	if err := e.confirm(rev.Controller.Site, before, blameWithin); err != nil {
		return fmt.Errorf("revision %d: %w: %w", rev.Number, ErrUnconfirmed, why)
	}
	if err := e.store.Reject(rev, why.Error(), time.Now()); err != nil {
		return err
	}
	said := *e.current.Load()
	said.Rejected = e.store.Rejected()
	e.current.Store(&said)
	return fmt.Errorf("revision %d of term %d: %w: %w", rev.Number, rev.Epoch, configs.ErrRejected, why)
}

// confirm waits until the running configuration has proved itself, and says
// after a time why it has not.
func (e *Edge) confirm(dashboard string, before int, within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for {
		err := e.proved(ctx, dashboard, before)
		if err == nil {
			return nil
		}
		select {
		case <-e.ended:
			return errEnding
		case <-ctx.Done():
			return err
		case <-time.After(confirmLook):
		}
	}
}

func (e *Edge) proved(ctx context.Context, dashboard string, before int) error {
	if before > 0 && e.pathsUp() == 0 {
		return errors.New("no path is up any more")
	}
	site := e.config.SiteByName(dashboard)
	if site == nil {
		return fmt.Errorf("dashboard %s is no site of it", dashboard)
	}
	ctx, cancel := context.WithTimeout(ctx, confirmDial)
	defer cancel()
	c, err := e.engine.Dial(ctx, "tcp", netip.AddrPortFrom(e.config.OverlayAddress(site), agent.Port))
	if err != nil {
		return fmt.Errorf("dashboard %s is not reached: %w", dashboard, err)
	}
	return c.Close()
}

// pathsUp counts the paths that carry packets.
func (e *Edge) pathsUp() (n int) {
	st := e.engine.Status()
	for i := range st.Paths {
		if s := st.Paths[i].State; s == path.Up.String() || s == path.Degraded.String() {
			n++
		}
	}
	return n
}
