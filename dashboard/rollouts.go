package dashboard

import (
	"context"
	"net/http"
	"reflect"
	"strings"
	"time"

	"patronus/dashboard/auth"
	"patronus/dashboard/control"
)

// Rollouts are changes on their way by stages; *control.Plane has them.
type Rollouts interface {
	Rollout() *control.Rollout
	Pause(ctx context.Context, by auth.Actor) (*control.Rollout, error)
	Resume(ctx context.Context, by auth.Actor) (*control.Rollout, error)
	Abort(ctx context.Context, by auth.Actor) (*control.Rollout, error)
}

// RolloutStatus is a rollout and how far it has got.
type RolloutStatus struct {
	control.Rollout
	Sites   int `json:"sites"`
	Applied int `json:"applied"`
	// Pending sites are released and have not answered; Held ones wait for their
	// stage. At most 100 of each are named.
	Pending []string `json:"pending"`
	Held    []string `json:"held"`
}

// rolloutParams are of every route that makes a revision.
func rolloutParams() []Param {
	return []Param{
		{"rollout", "string", "staged: give the change to one site, then to a tenth, then to all, and halt if the fabric gets worse"},
		{"canary", "string", "with rollout=staged: the sites of the first stage, with commas between them"},
		{"soak", "string", "with rollout=staged: how long each stage is watched, 1s to 24h; default 30s"},
	}
}

// withRollouts adds the parameters of rollouts to the routes that make revisions.
func withRollouts(all []Route) []Route {
	for i := range all {
		if all[i].Answer != nil && reflect.TypeOf(all[i].Answer) == reflect.TypeFor[Accepted]() {
			all[i].Query = append(all[i].Query[:len(all[i].Query):len(all[i].Query)], rolloutParams()...)
		}
	}
	return all
}

func rolloutRoutes() []Route {
	return []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/rollouts/current", Name: "showRollout", Access: fabric(auth.ViewConfig), Status: 200,
			Doc: "Show the newest rollout: its stages, and which sites have applied it.", Answer: RolloutStatus{}, handle: (*Server).showRollout,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/rollouts/current/pause", Name: "pauseRollout", Access: fabric(auth.ManageConfig), Status: 200,
			Doc: "Hold the rollout where it is.", Answer: RolloutStatus{}, handle: (*Server).pauseRollout,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/rollouts/current/resume", Name: "resumeRollout", Access: fabric(auth.ManageConfig), Status: 200,
			Doc: "Let a rollout go on that was paused or has halted itself.", Answer: RolloutStatus{}, handle: (*Server).resumeRollout,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/rollouts/current/abort", Name: "abortRollout", Access: fabric(auth.ManageConfig), Status: 200,
			Doc: "End the rollout: every site gets what it had before, as a new revision.", Answer: RolloutStatus{}, handle: (*Server).abortRollout,
		},
	}
}

// staged reads how a change is to be given to the sites; nil is to all at once.
func (r *request) staged() (*control.Staged, error) {
	switch r.Query("rollout") {
	case "", "all":
		return nil, nil
	case "staged":
	default:
		return nil, invalid("rollout", "is staged, or all")
	}
	out := &control.Staged{}
	if c := r.Query("canary"); c != "" {
		out.Canary = strings.Split(c, ",")
	}
	if s := r.Query("soak"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil || d < time.Second || d > 24*time.Hour {
			return nil, invalid("soak", "is a duration of 1s to 24h")
		}
		out.Soak = d
	}
	return out, nil
}

func (s *Server) rollouts() (Rollouts, error) {
	r, ok := s.o.Plane.(Rollouts)
	if !ok {
		return nil, ErrUnavailable
	}
	return r, nil
}

func (s *Server) showRollout(r *request) error {
	all, err := s.rollouts()
	if err != nil {
		return err
	}
	return s.answerRollout(r, all.Rollout(), nil)
}

func (s *Server) pauseRollout(r *request) error  { return s.steerRollout(r, Rollouts.Pause) }
func (s *Server) resumeRollout(r *request) error { return s.steerRollout(r, Rollouts.Resume) }
func (s *Server) abortRollout(r *request) error  { return s.steerRollout(r, Rollouts.Abort) }

func (s *Server) steerRollout(r *request, do func(Rollouts, context.Context, auth.Actor) (*control.Rollout, error)) error {
	all, err := s.rollouts()
	if err != nil {
		return err
	}
	x, err := do(all, r.UserContext(), r.actor)
	return s.answerRollout(r, x, err)
}

func (s *Server) answerRollout(r *request, x *control.Rollout, err error) error {
	if err != nil {
		return err
	}
	if x == nil {
		return notFound("rollout", "current")
	}
	const most = 100
	out := RolloutStatus{Rollout: *x, Pending: []string{}, Held: []string{}}
	states, _ := s.o.States.States()
	for i, stage := range x.Stages {
		for _, name := range stage.Sites {
			out.Sites++
			switch st := states[name]; {
			case i > x.Stage && x.InProgress():
				if len(out.Held) < most {
					out.Held = append(out.Held, name)
				}
			case st != nil && st.Revision >= x.Revision:
				out.Applied++
			case len(out.Pending) < most:
				out.Pending = append(out.Pending, name)
			}
		}
	}
	return r.answer(http.StatusOK, out)
}
