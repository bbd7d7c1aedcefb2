package dashboard

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	goqr "github.com/piglig/go-qr"

	"patronus/appliance/enroll"
	"patronus/configs"
	"patronus/dashboard/auth"
	"patronus/dashboard/control"
)

// Enroller makes tokens and takes claims; *control.Enroller is one.
type Enroller interface {
	Token(ctx context.Context, by auth.Actor, o control.Order) (enroll.Token, control.Ticket, error)
	Revoke(ctx context.Context, by auth.Actor, site string) error
	Ticket(site string) (control.Ticket, error)
	Challenge(hello enroll.Hello) (enroll.Challenge, error)
	Claim(ctx context.Context, from auth.Client, e *enroll.Envelope) (*enroll.Grant, error)
}

// EnrollmentOrder asks for a token.
type EnrollmentOrder struct {
	Site string `json:"site"`
	// TTLSeconds is how long the token is good; 0 means an hour.
	TTLSeconds int `json:"ttl_seconds,omitempty"`
	// Addresses are where the appliance finds this dashboard, host:port; without
	// any it is the address that the request came to.
	Addresses []string `json:"addresses,omitempty"`
	// Replace puts a new appliance in the place of the one that the site has.
	Replace bool `json:"replace,omitempty"`
}

// EnrollmentToken is a token in the forms in which it is carried. The token is
// shown once: only its hash is kept.
type EnrollmentToken struct {
	Site      string    `json:"site"`
	ExpiresAt time.Time `json:"expires_at"`
	Token     string    `json:"token"`
	Command   string    `json:"command"`   // for an installed appliance
	Container string    `json:"container"` // command line of a container
	// File goes to patronus/token on the EFI partition of an image, or on a
	// volume called cidata; Kernel onto a kernel's command line.
	File   string `json:"file"`
	Kernel string `json:"kernel"`
	QRSVG  string `json:"qr_svg"`
	QRText string `json:"qr_text"` // for a terminal: two rows a line
	// Fingerprint is the dashboard's certificate, for people to compare.
	Fingerprint string `json:"fingerprint"`
}

// The states of an enrollment, in their order.
const (
	enrollCreated   = "created"
	enrollExpired   = "expired"
	enrollRevoked   = "revoked"
	enrollClaimed   = "claimed"
	enrollConnected = "connected"
	enrollCarrying  = "carrying traffic"
)

// Enrollment is how far a new site has got.
type Enrollment struct {
	Site      string    `json:"site"`
	State     string    `json:"state"`
	CreatedAt time.Time `json:"created_at"`
	CreatedBy string    `json:"created_by"`
	ExpiresAt time.Time `json:"expires_at"`
	Replace   bool      `json:"replace,omitempty"`
	ClaimedAt time.Time `json:"claimed_at,omitzero"`
	SeenAt    time.Time `json:"seen_at,omitzero"`
	PathsUp   int       `json:"paths_up"`
	Flows     int       `json:"active_flows"`
	// Fingerprint is that of the appliance's signing key, for people to compare.
	Fingerprint string `json:"fingerprint,omitempty"`
}

func enrollmentRoutes() []Route {
	return []Route{
		{
			Method: http.MethodPost, Path: "/api/v1/tokens/enrollment", Name: "createEnrollmentToken", Access: needs(auth.ManageSites), Status: 201,
			Doc:  "Make a one-time token that turns a new appliance into a site. It is shown once.",
			Body: EnrollmentOrder{}, Answer: EnrollmentToken{}, handle: (*Server).createEnrollmentToken,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/sites/:id/enrollment", Name: "showEnrollment", Access: needs(auth.ViewSites), Status: 200,
			Doc: "Show how far a new site has got: created, claimed, connected, carrying traffic.", Answer: Enrollment{}, handle: (*Server).showEnrollment,
		},
		{
			Method: http.MethodDelete, Path: "/api/v1/sites/:id/enrollment", Name: "revokeEnrollmentToken", Access: needs(auth.ManageSites), Status: 204,
			Doc: "Make a site's enrollment token worthless, if it was not used yet.", handle: (*Server).revokeEnrollment,
		},
		{
			Method: http.MethodPost, Path: enroll.ChallengePath, Name: "enrollmentChallenge", Access: public(), Status: 200,
			Doc: "For appliances: ask for the challenge that a claim is made for.", Body: enroll.Hello{}, Answer: enroll.Challenge{}, handle: (*Server).enrollmentChallenge,
		},
		{
			Method: http.MethodPost, Path: enroll.ClaimPath, Name: "enrollmentClaim", Access: public(), Status: 200,
			Doc: "For appliances: claim a site by a token and the proof of one's keys.", Body: enroll.Envelope{}, Answer: enroll.Grant{}, handle: (*Server).enrollmentClaim,
		},
	}
}

// enrollable finds a site in the actor's scope.
func (s *Server) enrollable(r *request, id string) error {
	if s.o.Enroller == nil {
		return ErrUnavailable
	}
	site := s.o.Plane.Current().Network.Site(id)
	if site == nil || !r.actor.Scope.Sees(site.Labels) {
		return notFound("site", id)
	}
	return nil
}

func (s *Server) createEnrollmentToken(r *request) error {
	var b EnrollmentOrder
	if err := r.body(&b); err != nil {
		return err
	}
	if err := s.enrollable(r, b.Site); err != nil {
		return err
	}
	if len(b.Addresses) == 0 {
		host := string(r.Context().Host())
		if _, _, err := net.SplitHostPort(host); err != nil {
			host = net.JoinHostPort(strings.Trim(host, "[]"), "443")
		}
		b.Addresses = []string{host}
	}
	t, ticket, err := s.o.Enroller.Token(r.UserContext(), r.actor, control.Order{
		Site: b.Site, Addresses: b.Addresses, TTL: time.Duration(b.TTLSeconds) * time.Second, Replace: b.Replace,
	})
	if err != nil {
		return err
	}
	out, err := tokenForms(&t, ticket.ExpiresAt)
	if err != nil {
		return err
	}
	return r.answer(http.StatusCreated, out)
}

// tokenForms are the ways to carry a token.
func tokenForms(t *enroll.Token, until time.Time) (EnrollmentToken, error) {
	text := t.Reveal()
	code, err := goqr.EncodeText(text, goqr.Low)
	if err != nil {
		return EnrollmentToken{}, fmt.Errorf("QR code: %w", err)
	}
	return EnrollmentToken{
		Site: t.Site, ExpiresAt: until, Token: text,
		Command:   "patronus enroll " + text,
		Container: "podman run -d --name patronus --cap-drop ALL --read-only -v patronus:/var/lib/patronus -e PATRONUS_TOKEN=" + text + " patronus",
		File:      text + "\n",
		Kernel:    "patronus.token=" + text,
		QRSVG:     qrSVG(code), QRText: qrText(code),
		Fingerprint: strings.ToUpper(hex.EncodeToString(t.Certificate[:])),
	}, nil
}

// quiet is the empty border that a reader needs, in modules (ISO/IEC 18004, 9.1).
const quiet = 4

// qrSVG draws a code as one path, with no style and no script in it.
func qrSVG(code *goqr.QrCode) string {
	n := code.Size() + 2*quiet
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" shape-rendering="crispEdges"><path fill="#fff" d="M0 0h%dv%dH0z"/><path fill="#000" d="`, n, n, n, n)
	for y := range code.Size() {
		for x := range code.Size() {
			if code.Module(x, y) {
				fmt.Fprintf(&b, "M%d %dh1v1h-1z", x+quiet, y+quiet)
			}
		}
	}
	b.WriteString(`"/></svg>`)
	return b.String()
}

// qrText draws a code with half blocks, light on dark.
func qrText(code *goqr.QrCode) string {
	var b strings.Builder
	for y := -quiet; y < code.Size()+quiet; y += 2 {
		for x := -quiet; x < code.Size()+quiet; x++ {
			upper, lower := !code.Module(x, y), !code.Module(x, y+1)
			switch {
			case upper && lower:
				b.WriteRune('█')
			case upper:
				b.WriteRune('▀')
			case lower:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (s *Server) showEnrollment(r *request) error {
	id := r.Params("id")
	if err := s.enrollable(r, id); err != nil {
		return err
	}
	t, err := s.o.Enroller.Ticket(id)
	if err != nil {
		return err
	}
	states, _ := s.o.States.States()
	return r.answer(http.StatusOK, enrollmentOf(&t, states[id], s.now()))
}

// enrollmentOf says how far a site has got: st may be nil.
func enrollmentOf(t *control.Ticket, st *SiteState, now time.Time) Enrollment {
	e := Enrollment{Site: t.Site, CreatedAt: t.CreatedAt, CreatedBy: t.By, ExpiresAt: t.ExpiresAt, Replace: t.Replace, ClaimedAt: t.ClaimedAt}
	switch {
	case t.ClaimedAt.IsZero() && t.Revoked:
		e.State = enrollRevoked
	case t.ClaimedAt.IsZero() && !now.Before(t.ExpiresAt):
		e.State = enrollExpired
	case t.ClaimedAt.IsZero():
		e.State = enrollCreated
	default:
		e.State, e.Fingerprint = enrollClaimed, configs.Fingerprint(t.Identity)
		if st == nil || st.SeenAt.Before(t.ClaimedAt) {
			break
		}
		e.State, e.SeenAt, e.Flows = enrollConnected, st.SeenAt.UTC(), st.Flows
		for i := range st.Paths {
			if st.Paths[i].State == stateUp {
				e.PathsUp++
			}
		}
		if e.PathsUp > 0 && e.Flows > 0 {
			e.State = enrollCarrying
		}
	}
	return e
}

func (s *Server) revokeEnrollment(r *request) error {
	id := r.Params("id")
	if err := s.enrollable(r, id); err != nil {
		return err
	}
	if err := s.o.Enroller.Revoke(r.UserContext(), r.actor, id); err != nil {
		return err
	}
	return r.SendStatus(http.StatusNoContent)
}

func (s *Server) enrollmentChallenge(r *request) error {
	if s.o.Enroller == nil {
		return ErrUnavailable
	}
	var b enroll.Hello
	if err := r.body(&b); err != nil {
		return err
	}
	ch, err := s.o.Enroller.Challenge(b)
	if err != nil {
		return err
	}
	return r.answer(http.StatusOK, ch)
}

func (s *Server) enrollmentClaim(r *request) error {
	if s.o.Enroller == nil {
		return ErrUnavailable
	}
	var b enroll.Envelope
	if err := r.body(&b); err != nil {
		return err
	}
	g, err := s.o.Enroller.Claim(r.UserContext(), r.actor.Client, &b)
	if err != nil {
		return err
	}
	return r.answer(http.StatusOK, g)
}
