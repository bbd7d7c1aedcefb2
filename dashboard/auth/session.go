package auth

import (
	"context"
	"crypto/subtle"
	"fmt"
	"slices"
	"strings"
	"time"

	"patronus/appliance/ledger"
)

// sessionRecord is a session as the ledger keeps it: a login, until it ends.
type sessionRecord struct {
	ID        string    `json:"id"`
	User      string    `json:"user"`
	Kind      Kind      `json:"kind"`
	Client    Client    `json:"client"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	// Hash is that of the cookie's or of the newest refresh token's secret.
	Hash []byte `json:"hash"`
	// Used are hashes of refresh tokens that were exchanged. Whoever shows one
	// has a stolen token, or is the victim: the session ends for both.
	Used [][]byte `json:"used,omitempty"`
}

// maxUsed is how many exchanged refresh tokens are remembered: of a session of
// 12 h with an exchange every 5 min, all.
const maxUsed = 160

type session struct {
	sessionRecord
	seen time.Time // guarded by Directory.mu
}

// Credentials are a login by name and password.
type Credentials struct {
	User     string
	Password Secret
	Client   Client
	// Kind is ByCookie for a browser, ByJWT for programs.
	Kind Kind
}

// Grant is what a login gives. Its secrets are in no other place.
type Grant struct {
	Actor Actor
	// Cookie is set for a browser.
	Cookie string
	// Access and Refresh are set for programs.
	Access, Refresh string
	AccessUntil     time.Time
	Until           time.Time // end of the session
}

// Login checks a password and begins a session. Wrong names and passwords are
// told apart neither by the error nor by the time it takes.
func (d *Directory) Login(ctx context.Context, c Credentials) (Grant, error) {
	account, address := loginKeys(c.User, c.Client.Addr)
	if err := d.throttle.begin(d.now(), account, address); err != nil {
		return Grant{}, err
	}
	d.mu.RLock()
	u := d.users[c.User] // of an unknown name: no hash, which no password fits
	d.mu.RUnlock()
	if len(c.Password) > maxPassword {
		c.Password = c.Password[:maxPassword+1] // too long to be right; bounds the work
	}
	ok, err := d.hasher.check(ctx, u.Hash, string(c.Password))
	if err != nil {
		return Grant{}, err
	}
	if !ok || u.Disabled {
		if err := d.refuse(ctx, c); err != nil {
			return Grant{}, err
		}
		return Grant{}, ErrCredentials
	}
	d.throttle.succeed(account, address)
	return d.begin(ctx, c.User, c.Kind, c.Client)
}

// refuse writes a failed login into the audit log. The throttle bounds how often.
func (d *Directory) refuse(ctx context.Context, c Credentials) error {
	name := c.User
	if checkName("user", name) != nil {
		name = "-" // it may be a password typed into the wrong field
	}
	r := d.record(Actor{User: name, Client: c.Client}, "login", "session", "", nil, nil)
	r.Outcome = "refused"
	if err := d.ledger.Update(ctx, func(tx *ledger.Tx) error { return tx.Audit(r) }); err != nil {
		return fmt.Errorf("login: %w", err)
	}
	return nil
}

// begin makes a session of a user who has proved to be who it is.
func (d *Directory) begin(ctx context.Context, user string, kind Kind, client Client) (Grant, error) {
	d.write.Lock()
	defer d.write.Unlock()
	now := d.now()
	secret := random(32)
	s := &session{seen: now, sessionRecord: sessionRecord{
		ID: random(16), User: user, Kind: kind, Client: client,
		CreatedAt: now.UTC(), ExpiresAt: now.Add(d.o.SessionFor).UTC(), Hash: digest(secret),
	}}
	d.mu.RLock()
	actor, ok := d.actor(user, kind, s.ID, client)
	ended := d.surplus(user, now)
	d.mu.RUnlock()
	if !ok {
		return Grant{}, ErrCredentials
	}
	err := d.ledger.Update(ctx, func(tx *ledger.Tx) error {
		if err := deleteAll(tx, sessionKey, ended); err != nil {
			return err
		}
		if err := put(tx, sessionKey(s.ID), s.sessionRecord); err != nil {
			return err
		}
		return tx.Audit(d.record(actor, "login", "session", "", nil, nil))
	})
	if err != nil {
		return Grant{}, fmt.Errorf("login: %w", err)
	}
	d.mu.Lock()
	d.forget(ended, nil)
	d.sessions[s.ID] = s
	d.mu.Unlock()
	return d.grant(actor, s, secret)
}

// surplus are a user's sessions that have ended, and the oldest that make room
// for one more. mu is held.
func (d *Directory) surplus(user string, now time.Time) []string {
	var ended []string
	var live []*session
	for id, s := range d.sessions {
		switch {
		case !d.alive(s, now):
			ended = append(ended, id)
		case s.User == user:
			live = append(live, s)
		}
	}
	slices.SortFunc(live, func(a, b *session) int { return a.CreatedAt.Compare(b.CreatedAt) })
	for i := 0; i <= len(live)-d.o.MaxSessions; i++ {
		ended = append(ended, live[i].ID)
	}
	return ended
}

func (d *Directory) alive(s *session, now time.Time) bool {
	return now.Before(s.ExpiresAt) && now.Sub(s.seen) < d.o.IdleFor
}

// grant writes the secrets of a session out.
func (d *Directory) grant(actor Actor, s *session, secret string) (Grant, error) {
	g := Grant{Actor: actor, Until: s.ExpiresAt}
	if s.Kind == ByCookie {
		g.Cookie = s.ID + "." + secret
		return g, nil
	}
	g.Refresh = s.ID + "." + secret
	g.AccessUntil = d.now().Add(d.o.AccessFor).UTC()
	if g.AccessUntil.After(s.ExpiresAt) {
		g.AccessUntil = s.ExpiresAt
	}
	var err error
	g.Access, err = d.signer.issue(s.User, s.ID, g.AccessUntil)
	return g, err
}

// Cookie authenticates a browser by its cookie's value.
func (d *Directory) Cookie(value string, c Client) (Actor, error) {
	id, secret, _ := strings.Cut(value, ".")
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.sessions[id]
	if s == nil || s.Kind != ByCookie || !d.alive(s, d.now()) || subtle.ConstantTimeCompare(digest(secret), s.Hash) != 1 {
		return Actor{}, ErrCredentials
	}
	return d.use(s, c)
}

// Bearer authenticates a program by an access token or an API token.
func (d *Directory) Bearer(token string, c Client) (Actor, error) {
	if strings.HasPrefix(token, tokenPrefix) {
		return d.byToken(token, c)
	}
	user, id, err := d.signer.verify(token)
	if err != nil {
		return Actor{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.sessions[id]
	if s == nil || s.Kind != ByJWT || s.User != user || !d.alive(s, d.now()) {
		return Actor{}, ErrCredentials
	}
	return d.use(s, c)
}

// use notes that a session is used. mu is held for writing.
func (d *Directory) use(s *session, c Client) (Actor, error) {
	a, ok := d.actor(s.User, s.Kind, s.ID, c)
	if !ok {
		return Actor{}, ErrCredentials
	}
	s.seen = d.now()
	return a, nil
}

// Renew is an actor with the rights it has now, or [ErrCredentials] if its
// session or token has ended: what long-lived connections ask about once a
// second. It does not keep a session from ending for want of use.
func (d *Directory) Renew(a Actor) (Actor, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	now := d.now()
	if a.Kind == ByToken {
		t := d.tokens[a.Session]
		if t == nil || !t.alive(now) {
			return Actor{}, ErrCredentials
		}
		return d.tokenActor(t, a.Client)
	}
	s := d.sessions[a.Session]
	if s == nil || !d.alive(s, now) {
		return Actor{}, ErrCredentials
	}
	fresh, ok := d.actor(s.User, s.Kind, s.ID, a.Client)
	if !ok {
		return Actor{}, ErrCredentials
	}
	return fresh, nil
}

// Refresh exchanges a refresh token for a new access token and a new refresh
// token. A refresh token is good once: a second use ends the session
// (RFC 9700, 4.14.2).
func (d *Directory) Refresh(ctx context.Context, token string, c Client) (Grant, error) {
	id, secret, _ := strings.Cut(token, ".")
	d.write.Lock()
	defer d.write.Unlock()
	d.mu.RLock()
	s := d.sessions[id]
	var before sessionRecord
	var actor Actor
	ok := s != nil && s.Kind == ByJWT && d.alive(s, d.now())
	if ok {
		before = s.sessionRecord
		actor, ok = d.actor(s.User, s.Kind, s.ID, c)
	}
	d.mu.RUnlock()
	if !ok {
		return Grant{}, ErrCredentials
	}
	shown := digest(secret)
	if subtle.ConstantTimeCompare(shown, before.Hash) != 1 {
		for _, used := range before.Used {
			if subtle.ConstantTimeCompare(shown, used) == 1 {
				if err := d.end(ctx, actor, id, "refresh_reuse"); err != nil {
					return Grant{}, err
				}
			}
		}
		return Grant{}, ErrCredentials
	}
	after := before
	fresh := random(32)
	after.Hash = digest(fresh)
	after.Used = append(slices.Clone(before.Used), before.Hash)
	after.Used = after.Used[max(0, len(after.Used)-maxUsed):]
	err := d.ledger.Update(ctx, func(tx *ledger.Tx) error { return put(tx, sessionKey(id), after) })
	if err != nil {
		return Grant{}, fmt.Errorf("refresh: %w", err)
	}
	d.mu.Lock()
	s.sessionRecord, s.seen = after, d.now()
	d.mu.Unlock()
	return d.grant(actor, s, fresh)
}

// Logout ends the actor's session at once.
func (d *Directory) Logout(ctx context.Context, by Actor) error {
	if by.Kind == ByToken {
		return fmt.Errorf("an API token has no session; delete the token: %w", ErrForbidden)
	}
	d.write.Lock()
	defer d.write.Unlock()
	return d.end(ctx, by, by.Session, "logout")
}

// end ends a session. write is held.
func (d *Directory) end(ctx context.Context, by Actor, id, action string) error {
	err := d.ledger.Update(ctx, func(tx *ledger.Tx) error {
		if err := tx.Delete(sessionKey(id)); err != nil {
			return err
		}
		return tx.Audit(d.record(by, action, "session", "", nil, nil))
	})
	if err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	d.mu.Lock()
	delete(d.sessions, id)
	d.mu.Unlock()
	return nil
}
