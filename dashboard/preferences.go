package dashboard

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"patronus/appliance/ledger"
)

// Preferences are a user's own: how the pages are laid out, and what else the
// interface remembers. The server keeps them and does not read them.
type Preferences struct {
	Layout      json.RawMessage `json:"layout"`
	Preferences json.RawMessage `json:"preferences"`
	UpdatedAt   time.Time       `json:"updated_at,omitzero"`
}

// PreferencesBody is what a user keeps.
type PreferencesBody struct {
	Layout      json.RawMessage `json:"layout,omitempty"`
	Preferences json.RawMessage `json:"preferences,omitempty"`
}

// maxPreferences bounds what one user keeps, bytes.
const maxPreferences = 64 << 10

func preferenceRoutes() []Route {
	return []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/preferences", Name: "showPreferences", Access: signedIn(), Status: 200,
			Doc: "Show one's own layout and preferences.", Answer: Preferences{}, handle: (*Server).showPreferences,
		},
		{
			Method: http.MethodPut, Path: "/api/v1/preferences", Name: "updatePreferences", Access: signedIn(), Status: 200,
			Doc: "Replace one's own layout and preferences.", Body: PreferencesBody{}, Answer: Preferences{}, handle: (*Server).updatePreferences,
		},
	}
}

func preferencesKey(user string) string { return "preferences/" + user }

func (s *Server) showPreferences(r *request) error {
	p := Preferences{Layout: json.RawMessage("{}"), Preferences: json.RawMessage("{}")}
	err := s.o.Ledger.View(func(tx *ledger.Tx) error {
		text, err := tx.Get(preferencesKey(r.actor.User))
		if errors.Is(err, ledger.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return json.Unmarshal(text, &p)
	})
	if err != nil {
		return err
	}
	return r.answer(http.StatusOK, p)
}

func (s *Server) updatePreferences(r *request) error {
	var b PreferencesBody
	if err := r.body(&b); err != nil {
		return err
	}
	if len(b.Layout)+len(b.Preferences) > maxPreferences {
		return invalid("preferences", "and layout have at most 64 KiB together")
	}
	p := Preferences{Layout: b.Layout, Preferences: b.Preferences, UpdatedAt: r.now.UTC()}
	for _, t := range []*json.RawMessage{&p.Layout, &p.Preferences} {
		if len(*t) == 0 {
			*t = json.RawMessage("{}")
		}
	}
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := s.o.Ledger.Update(r.UserContext(), func(tx *ledger.Tx) error { return tx.Put(preferencesKey(r.actor.User), text) }); err != nil {
		return err
	}
	return r.text(http.StatusOK, text)
}
