package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"patronus/appliance/ledger"
)

// Options set a [Directory] up; zero values mean the defaults.
type Options struct {
	Cost        Cost          // of a password check; default [DefaultCost]
	Hashes      int           // password checks at a time; default 2
	AccessFor   time.Duration // life of an access token; default 5 min
	SessionFor  time.Duration // longest life of a session; default 12 h
	IdleFor     time.Duration // a session that is not used ends; default 1 h
	SetupFor    time.Duration // life of the setup code; default 10 min
	MaxSessions int           // of one user, the oldest go; default 50
	Now         func() time.Time
}

func (o *Options) withDefaults() {
	if o.Cost == (Cost{}) {
		o.Cost = DefaultCost()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Hashes <= 0 {
		o.Hashes = 2
	}
	if o.MaxSessions <= 0 {
		o.MaxSessions = 50
	}
	for _, d := range []struct {
		at  *time.Duration
		def time.Duration
	}{
		{&o.AccessFor, 5 * time.Minute},
		{&o.SessionFor, 12 * time.Hour},
		{&o.IdleFor, time.Hour},
		{&o.SetupFor, 10 * time.Minute},
	} {
		if *d.at <= 0 {
			*d.at = d.def
		}
	}
}

// Directory knows users, roles, sessions and API tokens.
type Directory struct {
	o        Options
	ledger   *ledger.Ledger
	hasher   *hasher
	throttle *throttle
	signer   *signer
	now      func() time.Time
	setup    setup

	// write is held from reading what a change starts from until the change is
	// durable and visible. It is taken before mu.
	write sync.Mutex

	mu       sync.RWMutex
	users    map[string]userRecord // by name
	roles    map[string]Role       // those that are not built in
	sessions map[string]*session   // by id
	tokens   map[string]*tokenRecord
}

// Keys in the ledger.
func userKey(name string) string  { return "user/" + name }
func roleKey(name string) string  { return "role/" + name }
func sessionKey(id string) string { return "session/" + id }
func tokenKey(id string) string   { return "token/" + id }

// Open reads the directory from a ledger, which stays the caller's to close
// and must not be written to by another directory.
func Open(l *ledger.Ledger, o Options) (*Directory, error) {
	o.withDefaults()
	sign, err := newSigner(o.Now)
	if err != nil {
		return nil, err
	}
	d := &Directory{
		o: o, ledger: l, hasher: newHasher(o.Cost, o.Hashes), throttle: newThrottle(), signer: sign, now: o.Now,
		users: map[string]userRecord{}, roles: map[string]Role{}, sessions: map[string]*session{}, tokens: map[string]*tokenRecord{},
	}
	err = l.View(func(tx *ledger.Tx) error {
		return errors.Join(
			load(tx, "user/", func(name string, u userRecord) { d.users[name] = u }),
			load(tx, "role/", func(name string, r Role) { d.roles[name] = r }),
			load(tx, "session/", func(id string, s sessionRecord) {
				if s.ExpiresAt.After(o.Now()) {
					d.sessions[id] = &session{sessionRecord: s, seen: o.Now()}
				}
			}),
			load(tx, "token/", func(id string, t tokenRecord) { d.tokens[id] = &t }),
		)
	})
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	d.setup.open(o.Now(), o.SetupFor, len(d.users) == 0)
	return d, nil
}

// load reads every value under a prefix.
func load[T any](tx *ledger.Tx, prefix string, each func(id string, v T)) error {
	var bad error
	err := tx.Scan(prefix, "", func(key string, text []byte) bool {
		var v T
		if err := json.Unmarshal(text, &v); err != nil {
			bad = fmt.Errorf("%s: %w", key, err)
			return false
		}
		each(strings.TrimPrefix(key, prefix), v)
		return true
	})
	return errors.Join(err, bad)
}

func put(tx *ledger.Tx, key string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	return tx.Put(key, text)
}

func deleteAll(tx *ledger.Tx, key func(string) string, ids []string) error {
	for _, id := range ids {
		if err := tx.Delete(key(id)); err != nil {
			return err
		}
	}
	return nil
}

// record is an audit record of something that an actor did. before and after
// are nil where there is nothing.
func (d *Directory) record(by Actor, action, kind, id string, before, after any) ledger.AuditRecord {
	return ledger.AuditRecord{
		At: d.now(), User: by.User, Action: action, ResourceType: kind, ResourceID: id,
		Before: encoded(before), After: encoded(after), IP: by.Client.Addr, UserAgent: by.Client.UserAgent, Outcome: "ok",
	}
}

// encoded is JSON of one of this package's own types, which always encode.
func encoded(v any) json.RawMessage {
	if v == nil {
		return nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage(`"unencodable"`)
	}
	return text
}

// forget drops sessions and tokens from memory. mu is held.
func (d *Directory) forget(sessions, tokens []string) {
	for _, id := range sessions {
		delete(d.sessions, id)
	}
	for _, id := range tokens {
		delete(d.tokens, id)
	}
}

// permissions of a role; an unknown one has none. mu is held.
func (d *Directory) permissions(role string) Permissions {
	if r, ok := builtIn(role); ok {
		return r.Permissions
	}
	return d.roles[role].Permissions
}

// actor is a user's rights at this moment. mu is held.
func (d *Directory) actor(user string, kind Kind, session string, c Client) (Actor, bool) {
	u, ok := d.users[user]
	if !ok || u.Disabled {
		return Actor{}, false
	}
	return Actor{
		User: user, Role: u.Role, Permissions: d.permissions(u.Role), Scope: u.Scope,
		Kind: kind, Session: session, Client: c,
	}, true
}

// Empty reports whether there are no users yet.
func (d *Directory) Empty() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.users) == 0
}
