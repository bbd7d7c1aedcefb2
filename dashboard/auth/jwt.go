package auth

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	issuer    = "patronus"
	audience  = "patronus-api"
	tokenType = "at+jwt" // RFC 9068
)

// claims of an access token. Rights are not among them: they are looked up at
// each request, so that a change of role holds at once.
type claims struct {
	Session string `json:"sid"`
	jwt.RegisteredClaims
}

// signer issues and checks access tokens: JWT by Ed25519 (RFC 8037). Its key
// is made at start and never leaves memory: no file holds what could forge a
// login, and a client whose token has ended by a restart uses its refresh token.
type signer struct {
	key    ed25519.PrivateKey
	id     string
	parser *jwt.Parser
	now    func() time.Time

	mu   sync.Mutex
	seen map[[sha256.Size]byte]verified // tokens whose signature was found good
}

// verified is what a good token says, until it expires.
type verified struct {
	user, session string
	until         time.Time
}

// maxSeen bounds the tokens that are remembered.
const maxSeen = 4096

func newSigner(now func() time.Time) (*signer, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	return &signer{
		key: key, id: hex.EncodeToString(public[:8]), now: now, seen: map[[sha256.Size]byte]verified{},
		parser: jwt.NewParser(
			jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
			jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithIssuer(issuer), jwt.WithAudience(audience),
			jwt.WithStrictDecoding(), jwt.WithTimeFunc(now)),
	}, nil
}

// issue makes an access token of a session.
func (s *signer) issue(user, session string, until time.Time) (string, error) {
	now := s.now()
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims{Session: session, RegisteredClaims: jwt.RegisteredClaims{
		Issuer: issuer, Audience: jwt.ClaimStrings{audience}, Subject: user,
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(until),
		ID: random(12),
	}})
	t.Header["typ"], t.Header["kid"] = tokenType, s.id
	text, err := t.SignedString(s.key)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return text, nil
}

// verify is the only way from a token to its session. A signature is checked
// once: that is most of what a small request costs. Whether the session is
// still alive is for the caller to ask each time.
func (s *signer) verify(token string) (user, session string, err error) {
	sum := sha256.Sum256([]byte(token))
	s.mu.Lock()
	v, ok := s.seen[sum]
	s.mu.Unlock()
	if ok {
		if !s.now().Before(v.until) {
			return "", "", ErrCredentials
		}
		return v.user, v.session, nil
	}
	var c claims
	t, err := s.parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		if t.Header["kid"] != s.id || t.Header["typ"] != tokenType {
			return nil, ErrCredentials
		}
		return s.key.Public(), nil
	})
	if err != nil || !t.Valid || c.Subject == "" || c.Session == "" {
		return "", "", ErrCredentials
	}
	s.mu.Lock()
	if len(s.seen) >= maxSeen {
		clear(s.seen)
	}
	s.seen[sum] = verified{c.Subject, c.Session, c.ExpiresAt.Time}
	s.mu.Unlock()
	return c.Subject, c.Session, nil
}
