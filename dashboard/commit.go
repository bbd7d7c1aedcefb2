package dashboard

import (
	"errors"
	"net/http"

	"github.com/gofiber/fiber/v2"

	"patronus/configs"
	"patronus/dashboard/auth"
	"patronus/dashboard/control"
)

// Accepted is the answer to a write: the revision that carries it, which sites
// apply on their own time (see /api/v1/revisions/{n}).
type Accepted struct {
	Revision uint64 `json:"revision"`
	ID       string `json:"id,omitempty"`
	// Unchanged: everything was as asked for already, Revision is an old one.
	Unchanged bool `json:"unchanged,omitempty"`
	// DryRun: all was checked and nothing written; Revision is the number that
	// the change would get.
	DryRun bool `json:"dry_run,omitempty"`
	// Reach is what the change would mean; with dry_run only.
	Reach *Reach `json:"reach,omitempty"`
}

// commit makes a change a revision and answers with it. location is where the
// resource is, "" if it is gone.
func (s *Server) commit(r *request, ch control.Change, location string) error {
	a, err := s.change(r, ch)
	if err != nil {
		return err
	}
	return r.accepted(a, location)
}

// change makes a change a revision.
func (s *Server) change(r *request, ch control.Change) (Accepted, error) {
	dry, err := r.flag("dry_run")
	if err != nil {
		return Accepted{}, err
	}
	ch.DryRun = dry
	if ch.Staged, err = r.staged(); err != nil {
		return Accepted{}, err
	}
	var after *configs.Network
	if edit := ch.Edit; dry {
		ch.Edit = func(n *configs.Network) error {
			after = n
			return edit(n)
		}
	}
	defer s.meter.query("commit")()
	before := s.o.Plane.Current().Network
	rev, err := s.o.Plane.Commit(r.UserContext(), r.actor, ch)
	a := Accepted{Revision: rev.Number, ID: ch.ID, DryRun: dry}
	switch {
	case errors.Is(err, control.ErrUnchanged):
		a.Unchanged = true
		return a, nil
	case err != nil:
		return Accepted{}, err
	case dry:
		if a.Reach, err = reachOf(r.UserContext(), before, after); err != nil {
			return Accepted{}, err
		}
	default:
		s.hub.Changed(rev.At, rev.Number, rev.User, rev.Action, rev.Kind, rev.ID)
	}
	return a, nil
}

func (r *request) accepted(a Accepted, location string) error {
	status := http.StatusAccepted
	if a.DryRun || a.Unchanged {
		status = http.StatusOK
	} else if location != "" {
		r.Set(fiber.HeaderLocation, location)
	}
	return r.answer(status, a)
}

// inScope refuses what is outside of the actor's sites. It answers as if the
// site were not there: who may not see it is not told that it is.
func inScope(v *view, a *auth.Actor, site string) error {
	if v.config.SiteByName(site) == nil || !v.sees(a, site) {
		return notFound("site", site)
	}
	return nil
}

// siteAt is the place of a site, -1 if there is none.
func siteAt(n *configs.Network, name string) int {
	for i := range n.Sites {
		if n.Sites[i].Name == name {
			return i
		}
	}
	return -1
}
