package control

import (
	"crypto/sha256"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"patronus/appliance/enroll"
	"patronus/configs"
	"patronus/dashboard/auth"
)

// enrolling is a world with an enroller, and a site that waits.
func enrolling(t *testing.T) (*world, *Enroller) {
	t.Helper()
	w := newWorld(t, []string{"hq", "east"})
	_, err := w.plane.Commit(t.Context(), auth.Actor{User: "alice"}, Change{
		Action: "create_site", Kind: "site", ID: "branch",
		Edit: func(n *configs.Network) error {
			n.Sites = append(n.Sites, configs.NetworkSite{
				Site: configs.Site{Name: "branch", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16")}},
				LAN:  []configs.LANPort{{Name: "lan0", Kind: configs.LANCable, Addresses: []netip.Prefix{netip.MustParsePrefix("10.77.0.1/24")}}},
			})
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return w, NewEnroller(EnrollerOptions{
		Plane: w.plane, Ledger: w.Distributor.o.Ledger, Distributor: w.Distributor, Root: w.pen.root.Public(),
		Certificate: func() [sha256.Size]byte { return sha256.Sum256([]byte("c")) }, Now: func() time.Time { return w.clock },
	})
}

func order(t *testing.T, e *Enroller, o Order) enroll.Token {
	t.Helper()
	o.Addresses = []string{"192.0.2.1:443"}
	tok, _, err := e.Token(t.Context(), auth.Actor{User: "alice"}, o)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// box that brings a token.
type newcomer struct {
	identity *configs.RootKey
	key      configs.PrivateKey
}

func newNewcomer() *newcomer { return &newcomer{configs.GenerateRootKey(), configs.GenerateKey()} }

func (b *newcomer) claim(t *testing.T, e *Enroller, tok enroll.Token, change func(*enroll.Claim)) (*enroll.Grant, error) {
	hash := tok.Hash()
	ch, err := e.Challenge(enroll.Hello{Token: hash[:]})
	if err != nil {
		return nil, err
	}
	c := &enroll.Claim{
		Secret: tok.Secret(), Fabric: tok.Fabric, Site: tok.Site, Identity: b.identity.Public(), DataDir: "/data",
		Uplinks: []enroll.Uplink{{Name: "wan0", PublicKey: b.key.Public(), PrivateKeyFile: "/data/keys/wan0.key"}},
	}
	if change != nil {
		change(c)
	}
	env, err := enroll.NewEnvelope(ch, c, b.identity, []configs.PrivateKey{b.key})
	if err != nil {
		t.Error(err)
		return nil, err
	}
	return e.Claim(t.Context(), auth.Client{Addr: "192.0.2.77"}, env)
}

// A hundred claims of one token at once: one wins (S13).
func TestS13ParallelClaims(t *testing.T) {
	w, e := enrolling(t)
	tok := order(t, e, Order{Site: "branch"})
	var won atomic.Int64
	var winner atomic.Pointer[newcomer]
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			b := newNewcomer()
			switch g, err := b.claim(t, e, tok, nil); {
			case err == nil:
				won.Add(1)
				winner.Store(b)
				if r, err := configs.Verify(g.Revision, tok.Root); err != nil || r.Site != "branch" {
					t.Errorf("%v %v", r, err)
				}
			case !errors.Is(err, ErrToken):
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d claims of one token have won", won.Load())
	}
	b := winner.Load()
	if got := w.plane.Current().Network.Site("branch"); got.Pending() || !got.Managed || got.Uplinks[0].PublicKey != b.key.Public() {
		t.Errorf("%+v", got)
	}
	// Who has won may ask again, and nothing is committed by it.
	rev := w.plane.Current().Revision.Number
	if _, err := b.claim(t, e, tok, nil); err != nil || w.plane.Current().Revision.Number != rev {
		t.Errorf("the winner asks again: %v", err)
	}
	// With other keys it is somebody else.
	b.key = configs.GenerateKey()
	if _, err := b.claim(t, e, tok, nil); !errors.Is(err, ErrToken) {
		t.Errorf("the winner with another key: %v", err)
	}
	if records, err := w.Distributor.o.Ledger.VerifyAudit(); err != nil || records == 0 {
		t.Error(records, err)
	}
}

func TestS13TokensThatAreNotGood(t *testing.T) {
	w, e := enrolling(t)
	tok := order(t, e, Order{Site: "branch", TTL: time.Hour})
	b := newNewcomer()
	for name, change := range map[string]func(*enroll.Claim){
		"another site":   func(c *enroll.Claim) { c.Site = "east" },
		"another fabric": func(c *enroll.Claim) { c.Fabric = "other" },
		"another secret": func(c *enroll.Claim) { c.Secret = make([]byte, 32) },
		"hq's key": func(c *enroll.Claim) {
			c.Uplinks[0].PublicKey = w.plane.Current().Network.Sites[0].Uplinks[0].PublicKey
		},
		"hq's LAN": func(c *enroll.Claim) {
			c.LAN = []configs.LANPort{{Name: "x", Kind: configs.LANCable, Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.9/24")}}}
		},
		"no key file":      func(c *enroll.Claim) { c.Uplinks[0].PrivateKeyFile = "" },
		"an uplink's name": func(c *enroll.Claim) { c.Uplinks[0].Name = "../x" },
	} {
		if _, err := b.claim(t, e, tok, change); err == nil {
			t.Errorf("%s: granted", name)
		}
	}
	if !w.plane.Current().Network.Site("branch").Pending() {
		t.Fatal("a refused claim has left something behind")
	}
	// Guesses: nobody finds a token, and none is answered.
	for range 1000 {
		guess, err := enroll.New("acme", "branch", []string{"a:1"}, [32]byte{}, tok.Root)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.claim(t, e, guess, nil); !errors.Is(err, ErrToken) {
			t.Fatal(err)
		}
	}
	w.clock = w.clock.Add(time.Hour)
	if _, err := b.claim(t, e, tok, nil); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an expired token: %v", err)
	}
	tok = order(t, e, Order{Site: "branch"})
	if err := e.Revoke(t.Context(), auth.Actor{User: "alice"}, "branch"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.claim(t, e, tok, nil); !errors.Is(err, ErrToken) {
		t.Errorf("a revoked token: %v", err)
	}
	tok = order(t, e, Order{Site: "branch"})
	w.pen.err = errors.New("fenced")
	if _, err := b.claim(t, e, tok, nil); err == nil || errors.Is(err, ErrToken) {
		t.Errorf("a dashboard without a term grants: %v", err)
	}
	w.pen.err = nil
	if _, err := b.claim(t, e, tok, nil); err != nil {
		t.Errorf("the token is still good: %v", err)
	}
	// Another appliance in its place, only if asked for; the old keys are gone.
	if _, _, err := e.Token(t.Context(), auth.Actor{}, Order{Site: "branch", Addresses: []string{"a:1"}}); !errors.Is(err, ErrEnrolled) {
		t.Errorf("%v", err)
	}
	tok = order(t, e, Order{Site: "branch", Replace: true})
	if _, err := b.claim(t, e, tok, nil); !errors.Is(err, ErrToken) {
		t.Errorf("the old keys again: %v", err)
	}
	next := newNewcomer()
	if _, err := next.claim(t, e, tok, nil); err != nil || w.plane.Current().Network.Site("branch").Uplinks[0].PublicKey != next.key.Public() {
		t.Errorf("replacing: %v", err)
	}
}

// Nothing that is kept of a token can be used in its place (S10).
func TestS10TokensAreNotKept(t *testing.T) {
	w, e := enrolling(t)
	tok := order(t, e, Order{Site: "branch"})
	var backup strings.Builder
	if err := w.Distributor.o.Ledger.Backup(&backup); err != nil {
		t.Fatal(err)
	}
	if secret := tok.Secret(); strings.Contains(backup.String(), string(secret)) || strings.Contains(backup.String(), tok.Reveal()[10:50]) {
		t.Error("the ledger has the token")
	}
}

// A site that waits is in nobody's configuration.
func TestPendingSitesAreNotSent(t *testing.T) {
	w, _ := enrolling(t)
	w.round(t.Context(), true)
	for name, b := range w.boxes {
		if b.running.SiteByName("branch") != nil {
			t.Errorf("%s knows a site without keys", name)
		}
	}
	_, err := w.plane.Commit(t.Context(), auth.Actor{}, Change{Edit: func(n *configs.Network) error {
		n.Sites = append(n.Sites, configs.NetworkSite{Site: configs.Site{Name: "twin", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.77.1.0/24")}}})
		return nil
	}})
	if err == nil || !strings.Contains(err.Error(), "overlaps 10.77.0.0/16 of site branch") {
		t.Errorf("overlapping prefixes of sites that wait: %v", err)
	}
}
