package dashboard

import (
	"net/http"

	"patronus/dashboard/auth"
)

func eventRoutes() []Route {
	return []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/events", Name: "listEvents", Access: needs(auth.ViewEvents), Status: 200, Past: true,
			Doc: "List what happened, the newest first.", Answer: Page[Event]{},
			Query: append(spanQuery()[:3],
				Param{"type", "string", "event type"}, Param{"severity", "string", "info, warning or critical"}, Param{"site", "string", "site id"},
				Param{"source", "string", "id of what it is about"}, Param{"acknowledged", "boolean", "seen by somebody, or not"},
				Param{"limit", "integer", "1 to 1000; default 100"}, Param{"cursor", "string", "of the next page"}),
			handle: (*Server).listEvents,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/events/:id", Name: "showEvent", Access: needs(auth.ViewEvents), Status: 200,
			Doc: "Show one event.", Answer: Event{}, handle: (*Server).showEvent,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/events/:id/acknowledge", Name: "acknowledgeEvent", Access: needs(auth.ManageAlerts), Status: 200,
			Doc: "Mark an event as seen.", Answer: Event{}, handle: (*Server).acknowledgeEvent,
		},
	}
}

func (s *Server) listEvents(r *request) error {
	if s.o.Events == nil {
		return ErrUnavailable
	}
	v, err := s.view(r.UserContext())
	if err != nil {
		return err
	}
	q := EventQuery{Type: r.Query("type"), Severity: r.Query("severity"), Site: r.Query("site"), Source: r.Query("source"), Cursor: r.Query("cursor"), Sees: v.scope(&r.actor)}
	switch q.Severity {
	case "", "info", "warning", "critical":
	default:
		return invalid("severity", "is none of info, warning, critical")
	}
	if r.Context().QueryArgs().Has("acknowledged") {
		seen, err := r.flag("acknowledged")
		if err != nil {
			return err
		}
		q.Acknowledged = &seen
	}
	args := r.Context().QueryArgs()
	if args.Has("from") || args.Has("to") || args.Has("duration") || !r.at.IsZero() {
		if q.From, q.To, err = r.span(); err != nil {
			return err
		}
	}
	if q.Limit, err = r.number("limit", defaultStored, 1, maxStored); err != nil {
		return err
	}
	defer s.meter.query("list_events")()
	events, next, err := s.o.Events.Events(r.UserContext(), q)
	if err != nil {
		return err
	}
	if events == nil {
		events = []Event{}
	}
	return r.answer(http.StatusOK, Page[Event]{Items: events, Next: next})
}

// eventOf finds the event of a request's URL, in the actor's scope. Events of
// no site belong to the whole fabric.
func (s *Server) eventOf(r *request) (Event, error) {
	if s.o.Events == nil {
		return Event{}, ErrUnavailable
	}
	v, err := s.view(r.UserContext())
	if err != nil {
		return Event{}, err
	}
	e, err := s.o.Events.Event(r.UserContext(), r.Params("id"))
	if err != nil {
		return Event{}, err
	}
	if !v.sees(&r.actor, e.Site) {
		return Event{}, notFound("event", r.Params("id"))
	}
	return e, nil
}

func (s *Server) showEvent(r *request) error {
	e, err := s.eventOf(r)
	if err != nil {
		return err
	}
	return r.answer(http.StatusOK, e)
}

func (s *Server) acknowledgeEvent(r *request) error {
	before, err := s.eventOf(r)
	if err != nil {
		return err
	}
	if before.Acknowledged {
		return r.answer(http.StatusOK, before) // the first who saw it stays
	}
	e, err := s.o.Events.Acknowledge(r.UserContext(), before.ID, r.actor.User, r.now)
	if err := s.audit(r, "acknowledge_event", "event", before.ID, nil, nil, err); err != nil {
		return err
	}
	return r.answer(http.StatusOK, e)
}
