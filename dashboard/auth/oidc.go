package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const (
	pendingFor = 10 * time.Minute
	maxPending = 1000
)

// Provider is an identity provider that people may sign in with.
type Provider struct {
	Issuer      string
	ClientID    string
	Secret      Secret
	RedirectURL string // https://the-dashboard/api/v1/auth/oidc/callback
	// Groups names the claim that lists groups, default "groups"; Roles says
	// which role each group gives, the first one of Order that fits.
	Groups string
	Roles  map[string]string
	Order  []string
	// DefaultRole is for users without such a group, "" refuses them.
	DefaultRole string
	// Client reaches the provider; default http.DefaultClient.
	Client *http.Client
}

// OIDC signs people in by the code flow of OpenID Connect Core 1.0 with PKCE
// (RFC 7636). Users are known by issuer and subject, never by name or e-mail
// address, which their owner, or somebody else, may change.
//
// It is safe for concurrent use.
type OIDC struct {
	p         Provider
	directory *Directory
	config    oauth2.Config
	verifier  *oidc.IDTokenVerifier

	mu      sync.Mutex
	pending map[string]pendingLogin // by state
}

// pendingLogin is a login that has been sent to the provider.
type pendingLogin struct {
	browser         []byte // digest of the browser's cookie
	nonce, verifier string
	until           time.Time
}

// NewOIDC asks a provider for its endpoints and keys.
func NewOIDC(ctx context.Context, d *Directory, p Provider) (*OIDC, error) {
	if p.Groups == "" {
		p.Groups = "groups"
	}
	if p.Client == nil {
		p.Client = http.DefaultClient
	}
	found, err := oidc.NewProvider(oidc.ClientContext(ctx, p.Client), p.Issuer)
	if err != nil {
		return nil, fmt.Errorf("identity provider: %w", err)
	}
	return &OIDC{
		p: p, directory: d, pending: map[string]pendingLogin{},
		config: oauth2.Config{
			ClientID: p.ClientID, ClientSecret: string(p.Secret), RedirectURL: p.RedirectURL,
			Endpoint: found.Endpoint(), Scopes: []string{oidc.ScopeOpenID, "profile", p.Groups},
		},
		verifier: found.Verifier(&oidc.Config{
			ClientID: p.ClientID, Now: d.now,
			SupportedSigningAlgs: []string{oidc.RS256, oidc.ES256, oidc.PS256, oidc.EdDSA},
		}),
	}, nil
}

// Begin starts a login: the address to send the browser to, and a cookie that
// it has to bring back, so that nobody finishes the login of another.
func (o *OIDC) Begin() (address, cookie string, err error) {
	state, cookie := random(24), random(24)
	l := pendingLogin{browser: digest(cookie), nonce: random(24), verifier: oauth2.GenerateVerifier(), until: o.directory.now().Add(pendingFor)}
	o.mu.Lock()
	defer o.mu.Unlock()
	for s, old := range o.pending {
		if !o.directory.now().Before(old.until) {
			delete(o.pending, s)
		}
	}
	if len(o.pending) >= maxPending {
		return "", "", ErrBusy
	}
	o.pending[state] = l
	return o.config.AuthCodeURL(state, oidc.Nonce(l.nonce), oauth2.S256ChallengeOption(l.verifier)), cookie, nil
}

// take finds a pending login, once.
func (o *OIDC) take(state, cookie string) (pendingLogin, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l, ok := o.pending[state]
	delete(o.pending, state)
	return l, ok && o.directory.now().Before(l.until) && subtle.ConstantTimeCompare(l.browser, digest(cookie)) == 1
}

// Finish ends a login with what the provider sent the browser back with, and
// begins a session. Everything that is wrong is [ErrCredentials] alike.
func (o *OIDC) Finish(ctx context.Context, state, code, cookie string, c Client) (Grant, error) {
	l, ok := o.take(state, cookie)
	if !ok || code == "" {
		return Grant{}, ErrCredentials
	}
	ctx = oidc.ClientContext(ctx, o.p.Client)
	token, err := o.config.Exchange(ctx, code, oauth2.VerifierOption(l.verifier))
	if err != nil {
		return Grant{}, ErrCredentials
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := o.verifier.Verify(ctx, raw)
	if err != nil || id.Subject == "" || id.Issuer != o.p.Issuer || subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(l.nonce)) != 1 {
		return Grant{}, ErrCredentials
	}
	var claims map[string]any
	if err := id.Claims(&claims); err != nil {
		return Grant{}, ErrCredentials
	}
	role, ok := o.role(claims[o.p.Groups])
	if !ok {
		return Grant{}, fmt.Errorf("none of your groups has a role here: %w", ErrForbidden)
	}
	name, err := o.directory.external(ctx, id.Issuer, id.Subject, role, c)
	if err != nil {
		return Grant{}, err
	}
	return o.directory.begin(ctx, name, ByCookie, c)
}

// role is the first role that one of the groups gives.
func (o *OIDC) role(groups any) (string, bool) {
	have := map[string]bool{}
	list, _ := groups.([]any)
	for _, g := range list {
		if s, ok := g.(string); ok {
			have[s] = true
		}
	}
	for _, g := range o.p.Order {
		if role, ok := o.p.Roles[g]; ok && have[g] {
			return role, true
		}
	}
	return o.p.DefaultRole, o.p.DefaultRole != ""
}

// external is the user of an issuer and a subject, with the role that the
// provider's groups give now; it is made at the first login.
func (d *Directory) external(ctx context.Context, issuer, subject, role string, c Client) (string, error) {
	sum := sha256.Sum256([]byte(issuer + "\x00" + subject))
	name := "oidc." + hex.EncodeToString(sum[:10])
	by := Actor{User: "oidc", Role: Admin, Permissions: All, Client: c}
	u, err := d.User(name)
	if errors.Is(err, ErrNotFound) {
		u, err = d.addUser(ctx, by, userRecord{User: User{Name: name, Role: role, Issuer: issuer, Subject: subject}})
		if errors.Is(err, ErrExists) { // the same person, twice at once
			u, err = d.User(name)
		}
	}
	switch {
	case err != nil:
		return "", err
	case u.Issuer != issuer || u.Subject != subject || u.Disabled:
		return "", ErrCredentials
	case u.Role == role:
		return name, nil
	}
	_, err = d.changeUser(ctx, by, name, 0, "update_user", func(u *userRecord) error {
		u.Role = role
		return d.checkGrant(by, role, u.Scope)
	})
	return name, err
}
