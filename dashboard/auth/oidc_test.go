package auth

import (
	"errors"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/oauth2-proxy/mockoidc"
)

func TestS11OIDC(t *testing.T) {
	m, err := mockoidc.Run()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	d, c, _ := directory(t, t.TempDir(), cheap())
	c.at.Store(time.Now().UnixNano()) // tokens are dated by the provider
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	provider := Provider{
		Issuer: m.Issuer(), ClientID: m.ClientID, Secret: Secret(m.ClientSecret), RedirectURL: "https://localhost/api/v1/auth/oidc/callback",
		Roles: map[string]string{"netops": Operator, "everybody": Viewer}, Order: []string{"netops", "everybody"}, Client: client,
	}
	o, err := NewOIDC(t.Context(), d, provider)
	if err != nil {
		t.Fatal(err)
	}
	// visit goes to the provider as a browser, and comes back with its answer.
	visit := func(address string, u *mockoidc.MockUser) (state, code string) {
		t.Helper()
		m.QueueUser(u)
		resp, err := client.Get(address)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		back, err := url.Parse(resp.Header.Get("Location"))
		if err != nil || back.Query().Get("code") == "" {
			t.Fatalf("the provider answers %d %s", resp.StatusCode, resp.Header.Get("Location"))
		}
		return back.Query().Get("state"), back.Query().Get("code")
	}
	begin := func() (address, cookie string) {
		t.Helper()
		address, cookie, err := o.Begin()
		if err != nil {
			t.Fatal(err)
		}
		return address, cookie
	}
	jane := &mockoidc.MockUser{Subject: "1", Email: "jane@example.com", EmailVerified: true, PreferredUsername: "root", Groups: []string{"everybody"}}
	address, cookie := begin()
	state, code := visit(address, jane)
	g, err := o.Finish(t.Context(), state, code, cookie, Client{Addr: "192.0.2.1"})
	if err != nil || g.Actor.Role != Viewer || g.Cookie == "" {
		t.Fatalf("%+v %v", g, err)
	}
	if q, _ := url.Parse(address); q.Query().Get("code_challenge_method") != "S256" || q.Query().Get("nonce") == "" || len(state) < 32 {
		t.Errorf("the request lacks something: %s", address)
	}
	if g.Actor.User == "root" {
		t.Fatal("the provider's name for a user is a local user")
	}
	if a, err := d.Cookie(g.Cookie, Client{}); err != nil || a.User != g.Actor.User {
		t.Error(a, err)
	}
	// The same state, code or another browser is worth nothing.
	if _, err := o.Finish(t.Context(), state, code, cookie, Client{}); !errors.Is(err, ErrCredentials) {
		t.Errorf("a state used twice: %v", err)
	}
	refused := func(name string, finish func(state, code, cookie string) (string, string, string)) {
		t.Helper()
		address, cookie := begin()
		state, code := visit(address, jane)
		state, code, cookie = finish(state, code, cookie)
		if g, err := o.Finish(t.Context(), state, code, cookie, Client{}); !errors.Is(err, ErrCredentials) || g.Cookie != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	refused("another browser", func(s, c, _ string) (string, string, string) { return s, c, "other" })
	refused("no cookie", func(s, c, _ string) (string, string, string) { return s, c, "" })
	refused("foreign state", func(_, c, k string) (string, string, string) { return "foreign", c, k })
	refused("no code", func(s, _, k string) (string, string, string) { return s, "", k })
	refused("made-up code", func(s, _, k string) (string, string, string) { return s, "made-up", k })
	refused("the code of another login", func(s, _, k string) (string, string, string) {
		// Its PKCE verifier and its nonce are those of the other one.
		other, _ := begin()
		_, code := visit(other, jane)
		return s, code, k
	})
	address, cookie = begin()
	state, code = visit(address, jane)
	c.add(11 * time.Minute)
	if _, err := o.Finish(t.Context(), state, code, cookie, Client{}); !errors.Is(err, ErrCredentials) {
		t.Errorf("after eleven minutes: %v", err)
	}
	c.add(-11 * time.Minute)
	// Tokens for somebody else's client are not for us.
	foreign := provider
	foreign.ClientID = "other"
	o.verifier = nil
	if x, err := NewOIDC(t.Context(), d, foreign); err != nil {
		t.Fatal(err)
	} else {
		o.verifier = x.verifier
	}
	refused("another audience", func(s, c, k string) (string, string, string) { return s, c, k })
	if o, err = NewOIDC(t.Context(), d, provider); err != nil {
		t.Fatal(err)
	}
	sign := func(u *mockoidc.MockUser) (Grant, error) {
		address, cookie := begin()
		state, code := visit(address, u)
		return o.Finish(t.Context(), state, code, cookie, Client{})
	}
	// Another subject with the same e-mail address is another user.
	evil := &mockoidc.MockUser{Subject: "2", Email: "jane@example.com", EmailVerified: false, PreferredUsername: "root", Groups: []string{"netops"}}
	if e, err := sign(evil); err != nil || e.Actor.User == g.Actor.User || e.Actor.Role != Operator {
		t.Errorf("the same e-mail address: %+v %v", e.Actor, err)
	}
	// Groups decide at each login, and sessions with the old role end.
	jane.Groups = []string{"netops"}
	if again, err := sign(jane); err != nil || again.Actor.User != g.Actor.User || again.Actor.Role != Operator {
		t.Errorf("with another group: %+v %v", again.Actor, err)
	}
	if _, err := d.Cookie(g.Cookie, Client{}); err == nil {
		t.Error("the session with the old role goes on")
	}
	jane.Groups = []string{"strangers"}
	if _, err := sign(jane); !errors.Is(err, ErrForbidden) {
		t.Errorf("without a group that has a role: %v", err)
	}
	yes := true
	if _, err := d.UpdateUser(t.Context(), root(), g.Actor.User, 0, UserChange{Disabled: &yes}); err != nil {
		t.Fatal(err)
	}
	jane.Groups = []string{"netops"}
	if _, err := sign(jane); !errors.Is(err, ErrCredentials) {
		t.Errorf("a disabled user: %v", err)
	}
	// There is no password to guess.
	if _, err := d.Login(t.Context(), Credentials{User: g.Actor.User, Password: ""}); !errors.Is(err, ErrCredentials) {
		t.Errorf("with an empty password: %v", err)
	}
}
