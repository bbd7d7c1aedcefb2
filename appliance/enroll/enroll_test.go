package enroll

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"patronus/configs"
)

func newToken(t testing.TB) Token {
	t.Helper()
	root := configs.GenerateRootKey()
	tok, err := New("acme", "branch", []string{"192.0.2.1:8443", "[2001:db8::1]:443", "patronus.example.net:443"}, sha256.Sum256([]byte("certificate")), root.Public())
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestTokenIsReadAsItWasWritten(t *testing.T) {
	tok := newToken(t)
	text := tok.Reveal()
	got, err := Parse(" " + text + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if got.Fabric != "acme" || got.Site != "branch" || len(got.Addresses) != 3 || got.Addresses[1] != "[2001:db8::1]:443" || got.Hash() != tok.Hash() || !got.Root.Equal(tok.Root) || got.Certificate != tok.Certificate {
		t.Errorf("%#v", got)
	}
	if s := fmt.Sprintf("%v %+v %#v %s", tok, tok, tok, tok); strings.Contains(s, text[10:40]) || strings.Contains(s, "192.0.2.1") {
		t.Errorf("a token prints: %s", s)
	}
	// Every slip of the pen is found, and none is repeated in the error.
	for i := range text {
		for _, c := range []byte{'A', 'b', '-', '.'} {
			if text[i] == c {
				continue
			}
			bad := text[:i] + string(c) + text[i+1:]
			if _, err := Parse(bad); err == nil || strings.Contains(err.Error(), bad[11:]) {
				t.Fatalf("character %d as %q: %v", i, c, err)
			}
		}
	}
}

// Two dashboards, two tokens: nothing of 16 bytes is in both (S8).
func TestS08TokensShareNothing(t *testing.T) {
	a, b := newToken(t), newToken(t)
	if bytes.Equal(a.Secret(), b.Secret()) || a.Hash() == b.Hash() {
		t.Error("two tokens have one secret")
	}
}

type party struct {
	identity *configs.RootKey
	key      configs.PrivateKey
}

func (p *party) claim(tok *Token) *Claim {
	return &Claim{
		Secret: tok.Secret(), Fabric: tok.Fabric, Site: tok.Site, Identity: p.identity.Public(), DataDir: "/d",
		Uplinks: []Uplink{{Name: "wan0", PublicKey: p.key.Public(), PrivateKeyFile: "/d/k"}},
	}
}

// Claims that prove nothing: each is refused (S1).
func TestS01ForgedClaims(t *testing.T) {
	tok := newToken(t)
	me, other := party{configs.GenerateRootKey(), configs.GenerateKey()}, party{configs.GenerateRootKey(), configs.GenerateKey()}
	ch, secret := NewChallenge()
	good, err := NewEnvelope(ch, me.claim(&tok), me.identity, []configs.PrivateKey{me.key})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := good.Open(secret); err != nil {
		t.Fatal(err)
	}
	make := func(c *Claim, id *configs.RootKey, key configs.PrivateKey, ch Challenge) *Envelope {
		t.Helper()
		e, err := NewEnvelope(ch, c, id, []configs.PrivateKey{key})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	ch2, _ := NewChallenge()
	wrongKey := me.claim(&tok)
	wrongKey.Uplinks[0].PublicKey = other.key.Public()
	wrongID := me.claim(&tok)
	wrongID.Identity = other.identity.Public()
	noID := me.claim(&tok)
	noID.Identity = ed25519.PublicKey{}
	many := me.claim(&tok)
	many.Uplinks = nil
	low := me.claim(&tok)
	low.Uplinks[0].PublicKey = configs.Key{1}
	forged := map[string]*Envelope{
		"the identity of another":         make(wrongID, me.identity, me.key, ch),
		"signed by another":               make(me.claim(&tok), other.identity, me.key, ch),
		"the WireGuard key of another":    make(wrongKey, me.identity, me.key, ch),
		"proved by another WireGuard key": make(me.claim(&tok), me.identity, other.key, ch),
		"a point of low order":            make(low, me.identity, me.key, ch),
		"no identity":                     make(noID, me.identity, me.key, ch),
		"replayed for another challenge":  make(me.claim(&tok), me.identity, me.key, ch2),
		"no proofs":                       {Challenge: ch.ID, Claim: good.Claim, Signature: good.Signature},
		"no signature":                    {Challenge: ch.ID, Claim: good.Claim, Proofs: good.Proofs},
		"two proofs":                      {Challenge: ch.ID, Claim: good.Claim, Signature: good.Signature, Proofs: append(good.Proofs, good.Proofs[0])},
		"a role of its own":               {Challenge: ch.ID, Claim: append(good.Claim[:len(good.Claim)-1:len(good.Claim)-1], []byte(`,"role":"dashboard"}`)...), Signature: good.Signature, Proofs: good.Proofs},
		"text after the claim":            {Challenge: ch.ID, Claim: append(bytes.Clone(good.Claim), " {}"...), Signature: good.Signature, Proofs: good.Proofs},
		"nothing":                         {},
	}
	for name, e := range forged {
		if _, err := e.Open(secret); !errors.Is(err, ErrProof) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewEnvelope(ch, many, me.identity, nil); err != nil {
		t.Fatal(err)
	}
	// Every flipped bit of what travels is found (S2).
	for i := range good.Claim {
		e := *good
		e.Claim = bytes.Clone(good.Claim)
		e.Claim[i] ^= 1
		if _, err := e.Open(secret); !errors.Is(err, ErrProof) {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
}

func FuzzToken(f *testing.F) {
	tok := newToken(f)
	f.Add(tok.Reveal())
	f.Add("patronus1.")
	f.Fuzz(func(t *testing.T, s string) {
		if tok, err := Parse(s); err == nil && tok.Reveal() != strings.TrimSpace(s) {
			t.Errorf("%q is read, and written differently", s)
		}
	})
}

func FuzzClaim(f *testing.F) {
	_, secret := NewChallenge()
	f.Add([]byte(`{"secret":"","site":"a"}`), []byte("s"))
	f.Fuzz(func(t *testing.T, claim, signature []byte) {
		if _, err := (&Envelope{Claim: claim, Signature: signature}).Open(secret); err == nil {
			t.Error("a claim of chance is believed")
		}
	})
}
