package dashboard

import (
	"net/http"
	"time"

	"github.com/gofiber/fiber/v2"

	"patronus/dashboard/auth"
)

// LoginBody begins a session. With Session a browser gets a cookie; without,
// the answer has tokens for programs.
type LoginBody struct {
	Username string      `json:"username"`
	Password auth.Secret `json:"password"`
	Session  bool        `json:"session,omitempty"`
}

// SetupBody makes the first administrator.
type SetupBody struct {
	Code     auth.Secret `json:"code"`
	Username string      `json:"username"`
	Password auth.Secret `json:"password"`
}

// RefreshBody exchanges a refresh token.
type RefreshBody struct {
	RefreshToken auth.Secret `json:"refresh_token"`
}

// PasswordBody changes one's own password.
type PasswordBody struct {
	Old auth.Secret `json:"old_password"`
	New auth.Secret `json:"new_password"`
}

// Login is the answer to a login. ExpiresAt is the token's end, or the
// session's if there is a cookie instead.
type Login struct {
	Token            string    `json:"token,omitempty"`
	TokenType        string    `json:"token_type,omitempty"`
	ExpiresAt        time.Time `json:"expires_at"`
	RefreshToken     string    `json:"refresh_token,omitempty"`
	SessionExpiresAt time.Time `json:"session_expires_at"`
	User             Me        `json:"user"`
}

// Me is who asks, with what it may do.
type Me struct {
	Name        string           `json:"name"`
	Role        string           `json:"role"`
	Permissions auth.Permissions `json:"permissions"`
	Scope       auth.Scope       `json:"scope,omitempty"`
	Kind        auth.Kind        `json:"kind"`
}

func authRoutes() []Route {
	return []Route{
		{
			Method: http.MethodPost, Path: "/api/v1/setup", Name: "setup", Access: public(), Status: 201,
			Doc: "Make the first administrator with the code that the console shows at first start.", Body: SetupBody{}, Answer: auth.User{}, handle: (*Server).setup,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/setup", Name: "setupState", Access: public(), Status: 200,
			Doc: "Say whether the first administrator is still to be made.", Answer: SetupState{}, handle: (*Server).setupState,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/auth/login", Name: "login", Access: public(), Status: 200,
			Doc: "Sign in.", Body: LoginBody{}, Answer: Login{}, handle: (*Server).login,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/auth/oidc/login", Name: "oidcLogin", Access: public(), Status: 302,
			Doc: "Send the browser to the identity provider.", handle: (*Server).oidcLogin,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/auth/oidc/callback", Name: "oidcCallback", Access: public(), Status: 303,
			Doc: "End a login at the identity provider, with a session.", Query: []Param{{"state", "string", "of the login"}, {"code", "string", "of the provider"}}, handle: (*Server).oidcCallback,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/auth/refresh", Name: "refresh", Access: public(), Status: 200,
			Doc: "Exchange a refresh token, which is good once, for new tokens.", Body: RefreshBody{}, Answer: Login{}, handle: (*Server).refresh,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/auth/logout", Name: "logout", Access: signedIn(), Status: 204,
			Doc: "End the session at once.", handle: (*Server).logout,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/auth/me", Name: "me", Access: signedIn(), Status: 200,
			Doc: "Say who asks and what they may do.", Answer: Me{}, handle: (*Server).me,
		},
		{
			Method: http.MethodPut, Path: "/api/v1/auth/password", Name: "changePassword", Access: signedIn(), Status: 204,
			Doc: "Change one's own password; other sessions and API tokens end.", Body: PasswordBody{}, handle: (*Server).changePassword,
		},
	}
}

// SetupState says whether there are users.
type SetupState struct {
	Needed bool `json:"needed"`
}

func (s *Server) setupState(r *request) error {
	return r.answer(http.StatusOK, SetupState{Needed: s.o.Directory.Empty()})
}

func (s *Server) setup(r *request) error {
	var b SetupBody
	if err := r.body(&b); err != nil {
		return err
	}
	u, err := s.o.Directory.Setup(r.UserContext(), string(b.Code), auth.NewUser{Name: b.Username, Password: b.Password}, client(r.Ctx))
	if err != nil {
		return err
	}
	return r.answer(http.StatusCreated, u)
}

func meOf(a *auth.Actor) Me {
	return Me{Name: a.User, Role: a.Role, Permissions: a.Permissions, Scope: a.Scope, Kind: a.Kind}
}

func (s *Server) login(r *request) error {
	var b LoginBody
	if err := r.body(&b); err != nil {
		return err
	}
	kind := auth.ByJWT
	if b.Session {
		kind = auth.ByCookie
	}
	g, err := s.o.Directory.Login(r.UserContext(), auth.Credentials{User: b.Username, Password: b.Password, Client: client(r.Ctx), Kind: kind})
	if err != nil {
		return err
	}
	if g.Cookie != "" {
		r.Cookie(sessionCookie(g.Cookie, g.Until))
	}
	return r.answer(http.StatusOK, loginOf(&g))
}

// sessionCookie goes back to this host only, over TLS only, to no script, and
// with no request that another page makes.
func sessionCookie(value string, until time.Time) *fiber.Cookie {
	return &fiber.Cookie{
		Name: cookieName, Value: value, Path: "/", Expires: until,
		Secure: true, HTTPOnly: true, SameSite: fiber.CookieSameSiteStrictMode,
	}
}

func loginOf(g *auth.Grant) Login {
	l := Login{Token: g.Access, RefreshToken: g.Refresh, ExpiresAt: g.AccessUntil, SessionExpiresAt: g.Until, User: meOf(&g.Actor)}
	if g.Access != "" {
		l.TokenType = "Bearer"
	} else {
		l.ExpiresAt = g.Until
	}
	return l
}

// oidcCookie is for a login that comes back from another site's page, and for
// that alone.
const oidcCookie = "__Host-patronus-oidc"

func (s *Server) oidcLogin(r *request) error {
	if s.o.OIDC == nil {
		return ErrUnavailable
	}
	address, cookie, err := s.o.OIDC.Begin()
	if err != nil {
		return err
	}
	c := sessionCookie(cookie, r.now.Add(10*time.Minute))
	c.Name, c.SameSite = oidcCookie, fiber.CookieSameSiteLaxMode
	r.Cookie(c)
	return r.Redirect(address, http.StatusFound)
}

func (s *Server) oidcCallback(r *request) error {
	if s.o.OIDC == nil {
		return ErrUnavailable
	}
	g, err := s.o.OIDC.Finish(r.UserContext(), r.Query("state"), r.Query("code"), r.Cookies(oidcCookie), client(r.Ctx))
	if err != nil {
		return err
	}
	gone := sessionCookie("", time.Unix(0, 0))
	gone.Name = oidcCookie
	r.Cookie(gone)
	r.Cookie(sessionCookie(g.Cookie, g.Until))
	return r.Redirect("/", http.StatusSeeOther)
}

func (s *Server) refresh(r *request) error {
	var b RefreshBody
	if err := r.body(&b); err != nil {
		return err
	}
	g, err := s.o.Directory.Refresh(r.UserContext(), string(b.RefreshToken), client(r.Ctx))
	if err != nil {
		return err
	}
	return r.answer(http.StatusOK, loginOf(&g))
}

func (s *Server) logout(r *request) error {
	if err := s.o.Directory.Logout(r.UserContext(), r.actor); err != nil {
		return err
	}
	if r.actor.Kind == auth.ByCookie {
		r.Cookie(sessionCookie("", time.Unix(0, 0)))
		r.Set("Clear-Site-Data", `"cache", "storage"`)
	}
	return r.SendStatus(http.StatusNoContent)
}

func (s *Server) me(r *request) error { return r.answer(http.StatusOK, meOf(&r.actor)) }

func (s *Server) changePassword(r *request) error {
	if r.actor.Kind == auth.ByToken {
		return problem(http.StatusForbidden, "forbidden", "an API token changes no password")
	}
	var b PasswordBody
	if err := r.body(&b); err != nil {
		return err
	}
	if err := s.o.Directory.ChangePassword(r.UserContext(), r.actor, b.Old, b.New); err != nil {
		return err
	}
	return r.SendStatus(http.StatusNoContent)
}
