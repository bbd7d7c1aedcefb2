package auth

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"patronus/appliance/ledger"
)

// User is somebody who may sign in.
type User struct {
	Name string `json:"name"`
	Role string `json:"role"`
	// Scope limits the user to the sites with all of these labels.
	Scope     Scope     `json:"scope,omitempty"`
	Disabled  bool      `json:"disabled"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	// Version rises with every change.
	Version uint64 `json:"version"`
	// Issuer and Subject name the user at an identity provider (OpenID Connect
	// Core 1.0, 5.7); such a user has no password here.
	Issuer  string `json:"issuer,omitempty"`
	Subject string `json:"subject,omitempty"`
}

// userRecord is a user as the ledger keeps it.
type userRecord struct {
	User
	Hash string `json:"hash,omitempty"`
}

// NewUser is what makes a user.
type NewUser struct {
	Name     string `json:"name"`
	Password Secret `json:"password"`
	Role     string `json:"role"`
	Scope    Scope  `json:"scope,omitempty"`
}

// UserChange is what an administrator may change of a user. Nil means no change.
type UserChange struct {
	Role     *string `json:"role,omitempty"`
	Scope    *Scope  `json:"scope,omitempty"`
	Disabled *bool   `json:"disabled,omitempty"`
	Password *Secret `json:"password,omitempty"`
}

// Users are all users, by name.
func (d *Directory) Users() []User {
	d.mu.RLock()
	defer d.mu.RUnlock()
	list := make([]User, 0, len(d.users))
	for _, u := range d.users {
		list = append(list, u.User)
	}
	slices.SortFunc(list, func(a, b User) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// User is one user, or [ErrNotFound].
func (d *Directory) User(name string) (User, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	u, ok := d.users[name]
	if !ok {
		return User{}, fmt.Errorf("user %q: %w", name, ErrNotFound)
	}
	return u.User, nil
}

// CreateUser adds a user with a password.
func (d *Directory) CreateUser(ctx context.Context, by Actor, n NewUser) (User, error) {
	if err := checkName("name", n.Name); err != nil {
		return User{}, err
	}
	if err := checkPassword(n.Name, string(n.Password)); err != nil {
		return User{}, err
	}
	hash, err := d.hasher.hash(ctx, string(n.Password))
	if err != nil {
		return User{}, err
	}
	return d.addUser(ctx, by, userRecord{User: User{Name: n.Name, Role: n.Role, Scope: n.Scope}, Hash: hash})
}

func (d *Directory) addUser(ctx context.Context, by Actor, u userRecord) (User, error) {
	d.write.Lock()
	defer d.write.Unlock()
	if err := d.checkGrant(by, u.Role, u.Scope); err != nil {
		return User{}, err
	}
	if _, err := d.User(u.Name); err == nil {
		return User{}, fmt.Errorf("user %q: %w", u.Name, ErrExists)
	}
	u.CreatedAt = d.now().UTC()
	u.UpdatedAt, u.Version = u.CreatedAt, 1
	err := d.ledger.Update(ctx, func(tx *ledger.Tx) error {
		if err := put(tx, userKey(u.Name), u); err != nil {
			return err
		}
		return tx.Audit(d.record(by, "create_user", "user", u.Name, nil, u.User))
	})
	if err != nil {
		return User{}, fmt.Errorf("create user: %w", err)
	}
	d.mu.Lock()
	d.users[u.Name] = u
	d.mu.Unlock()
	return u.User, nil
}

// UpdateUser changes a user. version is the one that the caller has seen, 0 for
// any. Whoever's rights or password change has to sign in again; a new password
// ends the user's API tokens too.
func (d *Directory) UpdateUser(ctx context.Context, by Actor, name string, version uint64, c UserChange) (User, error) {
	var hash string
	if c.Password != nil {
		if err := checkPassword(name, string(*c.Password)); err != nil {
			return User{}, err
		}
		var err error
		if hash, err = d.hasher.hash(ctx, string(*c.Password)); err != nil {
			return User{}, err
		}
	}
	return d.changeUser(ctx, by, name, version, "update_user", func(u *userRecord) error {
		if err := d.checkGrant(by, u.Role, u.Scope); err != nil {
			return err // whoever has more rights than by is not by's to change
		}
		if c.Role != nil {
			u.Role = *c.Role
		}
		if c.Scope != nil {
			u.Scope = maps.Clone(*c.Scope)
		}
		if c.Disabled != nil {
			u.Disabled = *c.Disabled
		}
		if hash != "" {
			if u.Issuer != "" {
				return &ValueError{"password", "is kept by the identity provider"}
			}
			u.Hash = hash
		}
		return d.checkGrant(by, u.Role, u.Scope)
	})
}

// ChangePassword changes the actor's own password. Its other sessions end.
func (d *Directory) ChangePassword(ctx context.Context, by Actor, old, password Secret) error {
	if err := checkPassword(by.User, string(password)); err != nil {
		return err
	}
	account, address := loginKeys(by.User, by.Client.Addr)
	if err := d.throttle.begin(d.now(), account, address); err != nil {
		return err
	}
	d.mu.RLock()
	have := d.users[by.User].Hash
	d.mu.RUnlock()
	ok, err := d.hasher.check(ctx, have, string(old))
	if err != nil {
		return err
	}
	if !ok {
		return &ValueError{"old_password", "is wrong"}
	}
	d.throttle.succeed(account, address)
	hash, err := d.hasher.hash(ctx, string(password))
	if err != nil {
		return err
	}
	_, err = d.changeUser(ctx, by, by.User, 0, "change_password", func(u *userRecord) error {
		if u.Hash != have {
			return fmt.Errorf("user %q: %w", by.User, ErrConflict)
		}
		u.Hash = hash
		return nil
	})
	return err
}

// changeUser is one change of a user: the record, the end of what it could sign
// in with, and the audit record, in one transaction.
func (d *Directory) changeUser(ctx context.Context, by Actor, name string, version uint64, action string, edit func(*userRecord) error) (User, error) {
	d.write.Lock()
	defer d.write.Unlock()
	d.mu.RLock()
	before, ok := d.users[name]
	d.mu.RUnlock()
	switch {
	case !ok:
		return User{}, fmt.Errorf("user %q: %w", name, ErrNotFound)
	case version != 0 && version != before.Version:
		return User{}, fmt.Errorf("user %q: %w", name, ErrConflict)
	}
	after := before
	if err := edit(&after); err != nil {
		return User{}, err
	}
	after.Version++
	after.UpdatedAt = d.now().UTC()
	if err := d.checkLastAdmin(name, &after); err != nil {
		return User{}, err
	}
	newPassword := before.Hash != after.Hash
	var ended, tokens []string
	if newPassword || before.Role != after.Role || !maps.Equal(before.Scope, after.Scope) || after.Disabled {
		d.mu.RLock()
		for id, s := range d.sessions {
			if s.User == name && id != by.Session {
				ended = append(ended, id)
			}
		}
		for id, t := range d.tokens {
			if t.User == name && newPassword && id != by.Session {
				tokens = append(tokens, id)
			}
		}
		d.mu.RUnlock()
	}
	err := d.ledger.Update(ctx, func(tx *ledger.Tx) error {
		if err := put(tx, userKey(name), after); err != nil {
			return err
		}
		if err := deleteAll(tx, sessionKey, ended); err != nil {
			return err
		}
		if err := deleteAll(tx, tokenKey, tokens); err != nil {
			return err
		}
		return tx.Audit(d.record(by, action, "user", name, before.User, after.User))
	})
	if err != nil {
		return User{}, fmt.Errorf("change user: %w", err)
	}
	d.mu.Lock()
	d.users[name] = after
	d.forget(ended, tokens)
	d.mu.Unlock()
	return after.User, nil
}

// DeleteUser removes a user with its sessions and tokens.
func (d *Directory) DeleteUser(ctx context.Context, by Actor, name string, version uint64) error {
	d.write.Lock()
	defer d.write.Unlock()
	d.mu.RLock()
	before, ok := d.users[name]
	var sessions, tokens []string
	for id, s := range d.sessions {
		if s.User == name {
			sessions = append(sessions, id)
		}
	}
	for id, t := range d.tokens {
		if t.User == name {
			tokens = append(tokens, id)
		}
	}
	d.mu.RUnlock()
	switch {
	case !ok:
		return fmt.Errorf("user %q: %w", name, ErrNotFound)
	case version != 0 && version != before.Version:
		return fmt.Errorf("user %q: %w", name, ErrConflict)
	}
	if err := d.checkGrant(by, before.Role, before.Scope); err != nil {
		return err
	}
	if err := d.checkLastAdmin(name, nil); err != nil {
		return err
	}
	err := d.ledger.Update(ctx, func(tx *ledger.Tx) error {
		if err := tx.Delete(userKey(name)); err != nil {
			return err
		}
		if err := deleteAll(tx, sessionKey, sessions); err != nil {
			return err
		}
		if err := deleteAll(tx, tokenKey, tokens); err != nil {
			return err
		}
		return tx.Audit(d.record(by, "delete_user", "user", name, before.User, nil))
	})
	if err != nil {
		return fmt.Errorf("delete user: %w", err)
	}
	d.mu.Lock()
	delete(d.users, name)
	d.forget(sessions, tokens)
	d.mu.Unlock()
	return nil
}

// checkGrant refuses to give, or to touch, rights that the giver does not have.
func (d *Directory) checkGrant(by Actor, role string, scope Scope) error {
	r, err := d.Role(role)
	switch {
	case err != nil:
		return &ValueError{"role", "there is no such role"}
	case !r.Permissions.Within(by.Permissions):
		return fmt.Errorf("role %q has permissions that you do not have: %w", role, ErrForbidden)
	}
	for k, v := range by.Scope {
		if scope[k] != v {
			return fmt.Errorf("the scope reaches further than yours: %w", ErrForbidden)
		}
	}
	return checkLabels("scope", scope)
}

// checkLastAdmin refuses a change after which nobody could manage users. after
// is nil if the user goes.
func (d *Directory) checkLastAdmin(name string, after *userRecord) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, u := range d.users {
		if u.Name == name {
			if after == nil {
				continue
			}
			u = *after
		}
		if !u.Disabled && len(u.Scope) == 0 && d.permissions(u.Role).Has(ManageUsers) {
			return nil
		}
	}
	return &ValueError{"role", "nobody would be left who may manage users"}
}

func checkLabels(field string, labels map[string]string) error {
	if len(labels) > 32 {
		return &ValueError{field, "has more than 32 labels"}
	}
	for k, v := range labels {
		if k == "" || len(k) > 63 || len(v) > 63 || !printable(k) || !printable(v) {
			return &ValueError{field, "a label's name and value have 1 to 63 printable characters"}
		}
	}
	return nil
}

func printable(s string) bool {
	return !bytes.ContainsFunc([]byte(s), func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// checkName accepts what stays itself in a URL and in a log line.
func checkName(field, name string) error {
	if name == "" || len(name) > 64 {
		return &ValueError{field, "has 1 to 64 characters"}
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', 'A' <= c && c <= 'Z':
		case i > 0 && (c == '.' || c == '-' || c == '_' || c == '@'):
		default:
			return &ValueError{field, "consists of letters, digits, and . - _ @ after the first"}
		}
	}
	return nil
}
