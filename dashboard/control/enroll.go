package control

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"patronus/appliance/enroll"
	"patronus/appliance/ledger"
	"patronus/configs"
	"patronus/dashboard/auth"
)

var (
	// ErrToken is for a token that is not good (any more), and for a claim that
	// does not go with it.
	ErrToken = errors.New("enrollment refused")
	// ErrEnrolled is for a token that would replace an appliance unasked.
	ErrEnrolled = errors.New("the site has an appliance already")
	// ErrNoEnrollment: no token was ever made for the site.
	ErrNoEnrollment = errors.New("no enrollment of this site")
)

// Bounds of tokens and challenges.
const (
	DefaultTokenTTL = time.Hour
	MaxTokenTTL     = 30 * 24 * time.Hour
	challengeFor    = time.Minute
	maxChallenges   = 4096
)

// EnrollerOptions are what an Enroller stands on.
type EnrollerOptions struct {
	Plane       *Plane
	Ledger      *ledger.Ledger
	Distributor *Distributor
	// Root certifies this dashboard; Certificate is the SHA-256 of the one that it
	// shows to browsers.
	Root        ed25519.PublicKey
	Certificate func() [sha256.Size]byte
	Now         func() time.Time
}

// Enroller makes enrollment tokens, and makes sites of the appliances that bring
// them. It is safe for concurrent use.
type Enroller struct {
	o EnrollerOptions

	mu         sync.Mutex
	challenges map[string]*asked
}

// asked is a challenge that waits for its claim.
type asked struct {
	secret *enroll.Secret
	hash   [sha256.Size]byte
	until  time.Time
}

// NewEnroller builds an enroller.
func NewEnroller(o EnrollerOptions) *Enroller {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Enroller{o: o, challenges: map[string]*asked{}}
}

// Ticket is what is kept of a token: nothing that could be used in its place.
type Ticket struct {
	Site      string    `json:"site"`
	By        string    `json:"by"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	// Replace tokens put a new appliance in the place of one that is there.
	Replace   bool      `json:"replace,omitempty"`
	Revoked   bool      `json:"revoked,omitempty"`
	ClaimedAt time.Time `json:"claimed_at,omitzero"`
	// Identity is the key of the appliance that has won.
	Identity ed25519.PublicKey `json:"identity,omitempty"`
	Claim    [sha256.Size]byte `json:"claim,omitzero"` // hash of its keys
}

func ticketKey(hash [sha256.Size]byte) string { return "enroll/token/" + hex.EncodeToString(hash[:]) }

// newestKey leads from a site to its newest token.
func newestKey(site string) string { return "enroll/site/" + site }

// Order asks for a token.
type Order struct {
	Site      string
	Addresses []string      // of the dashboard, host:port
	TTL       time.Duration // 0 means DefaultTokenTTL
	Replace   bool
}

// Token makes a token for a site that waits for its appliance. An older one of
// the site that was not used is revoked: one door at a time.
func (e *Enroller) Token(ctx context.Context, by auth.Actor, o Order) (enroll.Token, Ticket, error) {
	n := e.o.Plane.Current().Network
	site := n.Site(o.Site)
	switch {
	case site == nil:
		return enroll.Token{}, Ticket{}, fmt.Errorf("site %.80q: %w", o.Site, configs.ErrNoSite)
	case !site.Pending() && !o.Replace:
		return enroll.Token{}, Ticket{}, fmt.Errorf("site %s: %w: ask to replace it", o.Site, ErrEnrolled)
	case o.TTL == 0:
		o.TTL = DefaultTokenTTL
	case o.TTL < time.Minute || o.TTL > MaxTokenTTL:
		return enroll.Token{}, Ticket{}, &configs.FieldError{Path: "ttl", Value: o.TTL.String(), Why: fmt.Sprintf("is out of range: 1m to %s", MaxTokenTTL)}
	}
	t, err := enroll.New(n.Fabric, o.Site, o.Addresses, e.o.Certificate(), e.o.Root)
	if err != nil {
		return enroll.Token{}, Ticket{}, &configs.FieldError{Path: "addresses", Why: err.Error()}
	}
	now := e.o.Now().UTC()
	ticket := Ticket{Site: o.Site, By: by.User, CreatedAt: now, ExpiresAt: now.Add(o.TTL), Replace: o.Replace}
	err = e.o.Ledger.Update(ctx, func(tx *ledger.Tx) error {
		if err := revokeNewest(tx, o.Site); err != nil && !errors.Is(err, ErrNoEnrollment) {
			return err
		}
		hash := t.Hash()
		if err := tx.Put(newestKey(o.Site), hash[:]); err != nil {
			return err
		}
		if err := put(tx, ticketKey(hash), ticket); err != nil {
			return err
		}
		return tx.Audit(audited(by, now, "create_enrollment_token", o.Site))
	})
	if err != nil {
		return enroll.Token{}, Ticket{}, fmt.Errorf("enrollment token of %s: %w", o.Site, err)
	}
	return t, ticket, nil
}

func audited(by auth.Actor, at time.Time, action, site string) ledger.AuditRecord {
	return ledger.AuditRecord{
		At: at, User: by.User, Action: action, ResourceType: "site", ResourceID: site,
		IP: by.Client.Addr, UserAgent: by.Client.UserAgent, Outcome: "ok",
	}
}

// Revoke makes the newest token of a site worthless, if it was not used yet.
func (e *Enroller) Revoke(ctx context.Context, by auth.Actor, site string) error {
	return e.o.Ledger.Update(ctx, func(tx *ledger.Tx) error {
		if err := revokeNewest(tx, site); err != nil {
			return err
		}
		return tx.Audit(audited(by, e.o.Now().UTC(), "revoke_enrollment_token", site))
	})
}

func revokeNewest(tx *ledger.Tx, site string) error {
	hash, t, err := newestTicket(tx, site)
	if err != nil || !t.ClaimedAt.IsZero() {
		return err
	}
	t.Revoked = true
	return put(tx, ticketKey(hash), t)
}

func newestTicket(tx *ledger.Tx, site string) (hash [sha256.Size]byte, t Ticket, err error) {
	h, err := tx.Get(newestKey(site))
	if errors.Is(err, ledger.ErrNotFound) || err == nil && len(h) != len(hash) {
		return hash, t, ErrNoEnrollment
	}
	if err != nil {
		return hash, t, err
	}
	hash = [sha256.Size]byte(h)
	t, err = ticket(tx, hash)
	return hash, t, err
}

func ticket(tx *ledger.Tx, hash [sha256.Size]byte) (t Ticket, err error) {
	text, err := tx.Get(ticketKey(hash))
	if errors.Is(err, ledger.ErrNotFound) {
		return t, fmt.Errorf("%w: the token is not known here", ErrToken)
	}
	if err != nil {
		return t, err
	}
	return t, json.Unmarshal(text, &t)
}

func put(tx *ledger.Tx, key string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Put(key, text)
}

// Ticket is the newest token of a site, or [ErrNoEnrollment].
func (e *Enroller) Ticket(site string) (t Ticket, err error) {
	err = e.o.Ledger.View(func(tx *ledger.Tx) error {
		_, t, err = newestTicket(tx, site)
		return err
	})
	return t, err
}

// good reports why a token cannot be used at a time; nil if it can.
func (t *Ticket) good(now time.Time) error {
	switch {
	case t.Revoked:
		return fmt.Errorf("%w: the token was revoked", ErrToken)
	case !t.ClaimedAt.IsZero():
		return fmt.Errorf("%w: the token was used already", ErrToken)
	case !now.Before(t.ExpiresAt):
		return fmt.Errorf("%w: the token has expired", ErrToken)
	}
	return nil
}

// Challenge answers an appliance that has a token, with what the site's uplinks
// are to be called. A token that was used is answered too: whoever has won may
// have missed the answer.
func (e *Enroller) Challenge(hello enroll.Hello) (enroll.Challenge, error) {
	if len(hello.Token) != sha256.Size {
		return enroll.Challenge{}, fmt.Errorf("%w: the token is not known here", ErrToken)
	}
	hash := [sha256.Size]byte(hello.Token)
	var t Ticket
	err := e.o.Ledger.View(func(tx *ledger.Tx) (err error) {
		t, err = ticket(tx, hash)
		return err
	})
	if err != nil {
		return enroll.Challenge{}, err
	}
	now := e.o.Now()
	if err := t.good(now); err != nil && t.ClaimedAt.IsZero() {
		return enroll.Challenge{}, err
	}
	ch, secret := enroll.NewChallenge()
	if site := e.o.Plane.Current().Network.Site(t.Site); site != nil {
		for _, u := range site.Uplinks {
			ch.Uplinks = append(ch.Uplinks, enroll.Planned{Name: u.Name, Interface: u.Interface, ListenPort: u.ListenPort})
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, a := range e.challenges {
		if !now.Before(a.until) || len(e.challenges) >= maxChallenges {
			delete(e.challenges, id)
		}
	}
	e.challenges[ch.ID] = &asked{secret: secret, hash: hash, until: now.Add(challengeFor)}
	return ch, nil
}

// take ends a challenge, whatever becomes of its claim.
func (e *Enroller) take(id string) (*asked, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := e.challenges[id]
	delete(e.challenges, id)
	if a == nil || !e.o.Now().Before(a.until) {
		return nil, fmt.Errorf("%w: the challenge is not known or too old", ErrToken)
	}
	return a, nil
}

// Claim makes a site of an appliance whose claim is proved and whose token is
// good. The token is used up in the transaction that writes the site's keys: of
// any number of claims one wins. The winner may ask again and gets the same.
func (e *Enroller) Claim(ctx context.Context, from auth.Client, env *enroll.Envelope) (*enroll.Grant, error) {
	a, err := e.take(env.Challenge)
	if err != nil {
		return nil, err
	}
	c, err := env.Open(a.secret)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if enroll.HashSecret(c.Secret) != a.hash {
		return nil, fmt.Errorf("%w: the claim is of another token", ErrToken)
	}
	if err := e.o.Distributor.Holds(); err != nil {
		return nil, err
	}
	var t Ticket
	err = e.o.Ledger.View(func(tx *ledger.Tx) (err error) {
		t, err = ticket(tx, a.hash)
		return err
	})
	if err != nil {
		return nil, err
	}
	keys := keysOf(c)
	if !t.ClaimedAt.IsZero() && !t.Revoked && t.Identity.Equal(c.Identity) && t.Claim == keys {
		return e.grant(ctx, t.Site)
	}
	if err := t.good(e.o.Now()); err != nil {
		return nil, err
	}
	if c.Site != t.Site || c.Fabric != e.o.Plane.Current().Network.Fabric {
		return nil, fmt.Errorf("%w: the token is for another site", ErrToken)
	}
	_, err = e.o.Plane.Commit(ctx, auth.Actor{User: "enrollment", Client: from}, Change{
		Action: "enroll_site", Kind: "site", ID: t.Site, System: true,
		Edit: func(n *configs.Network) error { return settle(n, &t, c) },
		Show: func(n *configs.Network) any { return n.Site(t.Site) },
		Also: func(tx *ledger.Tx) error {
			// Compare and set: the token as it is now, in this transaction.
			now, err := ticket(tx, a.hash)
			if err != nil {
				return err
			}
			if err := now.good(e.o.Now()); err != nil {
				return err
			}
			now.ClaimedAt, now.Identity, now.Claim = e.o.Now().UTC(), c.Identity, keys
			return put(tx, ticketKey(a.hash), now)
		},
	})
	if err != nil {
		return nil, err
	}
	return e.grant(ctx, t.Site)
}

func keysOf(c *enroll.Claim) [sha256.Size]byte {
	h := sha256.New()
	for i := range c.Uplinks {
		h.Write(c.Uplinks[i].PublicKey[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// settle puts an appliance's keys into the network.
func settle(n *configs.Network, t *Ticket, c *enroll.Claim) error {
	site := n.Site(t.Site)
	switch {
	case site == nil:
		return fmt.Errorf("%w: the site has been deleted", ErrToken)
	case !site.Pending() && !t.Replace:
		return fmt.Errorf("%w: %w", ErrToken, ErrEnrolled)
	}
	old := site.Uplinks
	planned := slices.Clone(old)
	if len(planned) == 0 {
		for _, u := range c.Uplinks {
			planned = append(planned, configs.Uplink{Name: u.Name})
		}
	}
	if len(planned) != len(c.Uplinks) {
		return fmt.Errorf("%w: the site has %d uplinks, the claim %d", ErrToken, len(planned), len(c.Uplinks))
	}
	for i := range planned {
		u := &planned[i]
		at := slices.IndexFunc(c.Uplinks, func(x enroll.Uplink) bool { return x.Name == u.Name })
		if at < 0 {
			return fmt.Errorf("%w: the claim has no uplink %s", ErrToken, u.Name)
		}
		own := &c.Uplinks[at]
		if slices.ContainsFunc(old, func(x configs.Uplink) bool { return x.PublicKey == own.PublicKey }) {
			return fmt.Errorf("%w: uplink %s has a key that was used before", ErrToken, u.Name)
		}
		u.PublicKey, u.PrivateKeyFile = own.PublicKey, own.PrivateKeyFile
		u.Interface, u.ListenPort = own.Interface, own.ListenPort
		if len(u.Endpoints) == 0 {
			u.Endpoints = own.Endpoints
		}
	}
	site.Uplinks, site.Managed, site.DataDir = planned, true, c.DataDir
	if len(c.LAN) > 0 {
		site.LAN = c.LAN
	}
	return nil
}

// grant signs the first revision of a site that has won.
func (e *Enroller) grant(ctx context.Context, site string) (*enroll.Grant, error) {
	signed, err := e.o.Distributor.First(ctx, site)
	if err != nil {
		return nil, err
	}
	return &enroll.Grant{Revision: bytes.Clone(signed)}, nil
}
