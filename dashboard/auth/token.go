package auth

import (
	"cmp"
	"context"
	"crypto/subtle"
	"fmt"
	"slices"
	"strings"
	"time"

	"patronus/appliance/ledger"
)

// tokenPrefix marks API tokens, so that secret scanners find them.
const tokenPrefix = "patronus_"

// maxTokens is how many API tokens one user may have.
const maxTokens = 100

// Token is an API token: a user's rights, or some of them, for a program.
type Token struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	User string `json:"user"`
	// Permissions are what the token may do, as long as its user may.
	Permissions Permissions `json:"permissions"`
	CreatedAt   time.Time   `json:"created_at"`
	ExpiresAt   time.Time   `json:"expires_at"`
	UsedAt      time.Time   `json:"used_at,omitzero"` // since the last start
}

type tokenRecord struct {
	Token
	Hash []byte `json:"hash"`
}

func (t *tokenRecord) alive(now time.Time) bool { return now.Before(t.ExpiresAt) }

// Tokens are a user's API tokens, oldest first; of all users if user is empty.
func (d *Directory) Tokens(user string) []Token {
	d.mu.RLock()
	defer d.mu.RUnlock()
	list := []Token{}
	for _, t := range d.tokens {
		if user == "" || t.User == user {
			list = append(list, t.Token)
		}
	}
	slices.SortFunc(list, func(a, b Token) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// CreateToken makes an API token of the actor's own and returns it with its
// secret, of which only a hash is kept.
func (d *Directory) CreateToken(ctx context.Context, by Actor, name string, p Permissions, until time.Time) (Token, string, error) {
	now := d.now()
	switch {
	case by.Kind == ByToken:
		return Token{}, "", fmt.Errorf("an API token makes no tokens: %w", ErrForbidden)
	case !p.Within(by.Permissions):
		return Token{}, "", fmt.Errorf("the token would have permissions that you do not have: %w", ErrForbidden)
	case p == 0:
		return Token{}, "", &ValueError{"permissions", "is empty: the token could do nothing"}
	case !until.After(now):
		return Token{}, "", &ValueError{"expires_at", "is in the past"}
	case until.Sub(now) > 366*24*time.Hour:
		return Token{}, "", &ValueError{"expires_at", "is more than a year away"}
	}
	if err := checkName("name", name); err != nil {
		return Token{}, "", err
	}
	secret := random(32)
	t := &tokenRecord{Hash: digest(secret), Token: Token{
		ID: random(9), Name: name, User: by.User, Permissions: p, CreatedAt: now.UTC(), ExpiresAt: until.UTC(),
	}}
	d.write.Lock()
	defer d.write.Unlock()
	if len(d.Tokens(by.User)) >= maxTokens {
		return Token{}, "", &ValueError{"name", fmt.Sprintf("you have %d tokens already", maxTokens)}
	}
	err := d.ledger.Update(ctx, func(tx *ledger.Tx) error {
		if err := put(tx, tokenKey(t.ID), t); err != nil {
			return err
		}
		return tx.Audit(d.record(by, "create_token", "token", t.ID, nil, t.Token))
	})
	if err != nil {
		return Token{}, "", fmt.Errorf("create token: %w", err)
	}
	d.mu.Lock()
	d.tokens[t.ID] = t
	d.mu.Unlock()
	return t.Token, tokenPrefix + t.ID + "." + secret, nil
}

// DeleteToken revokes an API token: the actor's own, or anybody's for one who
// manages users.
func (d *Directory) DeleteToken(ctx context.Context, by Actor, id string) error {
	d.write.Lock()
	defer d.write.Unlock()
	d.mu.RLock()
	t := d.tokens[id]
	d.mu.RUnlock()
	if t == nil || t.User != by.User && !(by.May(ManageUsers) && by.Everywhere()) {
		return fmt.Errorf("token: %w", ErrNotFound)
	}
	err := d.ledger.Update(ctx, func(tx *ledger.Tx) error {
		if err := tx.Delete(tokenKey(id)); err != nil {
			return err
		}
		return tx.Audit(d.record(by, "delete_token", "token", id, t.Token, nil))
	})
	if err != nil {
		return fmt.Errorf("delete token: %w", err)
	}
	d.mu.Lock()
	delete(d.tokens, id)
	d.mu.Unlock()
	return nil
}

func (d *Directory) byToken(text string, c Client) (Actor, error) {
	id, secret, _ := strings.Cut(strings.TrimPrefix(text, tokenPrefix), ".")
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tokens[id]
	if t == nil || !t.alive(d.now()) || subtle.ConstantTimeCompare(digest(secret), t.Hash) != 1 {
		return Actor{}, ErrCredentials
	}
	t.UsedAt = d.now().UTC()
	return d.tokenActor(t, c)
}

// tokenActor is a token's user with what both may do. mu is held.
func (d *Directory) tokenActor(t *tokenRecord, c Client) (Actor, error) {
	a, ok := d.actor(t.User, ByToken, t.ID, c)
	if !ok {
		return Actor{}, ErrCredentials
	}
	a.Permissions &= t.Permissions
	return a, nil
}
