package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"patronus/appliance/ledger"
)

const good = "correct horse battery"

type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time      { return time.Unix(0, c.at.Load()).UTC() }
func (c *clock) add(d time.Duration) { c.at.Add(int64(d)) }

// directory has the administrator root.
func directory(t testing.TB, dir string, cost Cost) (*Directory, *clock, *ledger.Ledger) {
	t.Helper()
	l, err := ledger.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := &clock{}
	c.at.Store(time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC).UnixNano())
	d, err := Open(l, Options{Cost: cost, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	if d.Empty() {
		code, _, _ := d.SetupCode()
		if _, err := d.Setup(t.Context(), code, NewUser{Name: "root", Password: good}, Client{}); err != nil {
			t.Fatal(err)
		}
	}
	return d, c, l
}

func cheap() Cost { return Cost{Memory: 64, Passes: 1, Threads: 1} }

func root() Actor { return Actor{User: "root", Role: Admin, Permissions: All} }

func login(t testing.TB, d *Directory, user string, kind Kind) Grant {
	t.Helper()
	g, err := d.Login(t.Context(), Credentials{User: user, Password: good, Kind: kind, Client: Client{Addr: "192.0.2.1"}})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestS07SetupCode(t *testing.T) {
	l, err := ledger.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := &clock{}
	open := func() *Directory {
		d, err := Open(l, Options{Cost: cheap(), Now: c.now})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	admin := NewUser{Name: "root", Password: good}
	d := open()
	// There is no user, no password and no token that lets anybody in.
	for _, name := range []string{"admin", "root", "patronus", ""} {
		if _, err := d.Login(t.Context(), Credentials{User: name, Password: Secret(name)}); !errors.Is(err, ErrCredentials) {
			t.Errorf("login as %q: %v", name, err)
		}
	}
	first, until, ok := d.SetupCode()
	if !ok || len(first) < 26 || until.Sub(c.now()) != 10*time.Minute {
		t.Fatalf("code %q until %v", first, until)
	}
	// Five wrong codes and the right one is worth nothing.
	for range setupTries {
		if _, err := d.Setup(t.Context(), "wrong", admin, Client{}); !errors.Is(err, ErrSetup) {
			t.Fatal(err)
		}
	}
	if _, err := d.Setup(t.Context(), first, admin, Client{}); !errors.Is(err, ErrSetup) {
		t.Errorf("after too many tries: %v", err)
	}
	// Nor is it after ten minutes.
	d = open()
	second, _, _ := d.SetupCode()
	if second == first {
		t.Error("a restart gives the same code")
	}
	c.add(11 * time.Minute)
	if _, err := d.Setup(t.Context(), second, admin, Client{}); !errors.Is(err, ErrSetup) {
		t.Errorf("after ten minutes: %v", err)
	}
	// Of many at once one wins.
	d = open()
	code, _, _ := d.SetupCode()
	var won atomic.Int32
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if _, err := d.Setup(context.Background(), code, NewUser{Name: fmt.Sprintf("root%d", i), Password: good}, Client{}); err == nil {
				won.Add(1)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 || len(d.Users()) != 1 {
		t.Errorf("%d administrators of one code", won.Load())
	}
	if _, _, ok := open().SetupCode(); ok {
		t.Error("a code is offered beside an administrator")
	}
	// A hash is no password.
	d.mu.RLock()
	hash := d.users[d.Users()[0].Name].Hash
	d.mu.RUnlock()
	if _, err := d.Login(t.Context(), Credentials{User: d.Users()[0].Name, Password: Secret(hash)}); !errors.Is(err, ErrCredentials) {
		t.Errorf("with the hash as password: %v", err)
	}
}

func TestS07Passwords(t *testing.T) {
	d, _, _ := directory(t, t.TempDir(), cheap())
	for _, p := range []string{"", "short", strings.Repeat("x", 300), "\xff\xfe\xfd long enough", "rootrootroot"} {
		_, err := d.UpdateUser(t.Context(), root(), "root", 0, UserChange{Password: (*Secret)(&p)})
		var v *ValueError
		if !errors.As(err, &v) || v.Field != "password" {
			t.Errorf("password %.20q: %v", p, err)
		}
	}
	h := newHasher(cheap(), 1)
	a, err := h.hash(t.Context(), good)
	if err != nil {
		t.Fatal(err)
	}
	b, err := h.hash(t.Context(), good)
	if err != nil || a == b || !strings.HasPrefix(a, "$argon2id$v=19$m=64,t=1,p=1$") {
		t.Errorf("%s %s %v", a, b, err)
	}
	for _, bad := range []string{"x", "$argon2id$v=19$m=4294967295,t=1,p=1$c2FsdHNhbHQ$" + strings.Repeat("A", 43), strings.Replace(a, "argon2id", "argon2i", 1), a + "$", strings.Replace(a, "p=1", "p=0", 1)} {
		if _, err := h.check(t.Context(), bad, good); err == nil {
			t.Errorf("hash %.60s is read", bad)
		}
	}
	if c := DefaultCost(); c.Memory < 19<<10 || c.Passes < 2 {
		t.Errorf("default cost %+v is below the least that is advised", c)
	}
}

func TestS07ThrottleAndConcurrency(t *testing.T) {
	d, c, _ := directory(t, t.TempDir(), cheap())
	try := func(user, password, addr string) error {
		_, err := d.Login(t.Context(), Credentials{User: user, Password: Secret(password), Client: Client{Addr: addr}, Kind: ByJWT})
		return err
	}
	for i := range accountTries {
		if err := try("root", "wrong", "203.0.113.1"); !errors.Is(err, ErrCredentials) {
			t.Fatalf("try %d: %v", i, err)
		}
	}
	// The right password has to wait as well, or guessing would go on.
	var wait *ThrottledError
	if err := try("root", good, "203.0.113.1"); !errors.As(err, &wait) || wait.Wait != time.Second {
		t.Fatalf("after %d tries: %v", accountTries, err)
	}
	if err := try("root", good, "192.0.2.9"); err != nil {
		t.Errorf("the owner from elsewhere: %v", err)
	}
	waits := []time.Duration{}
	for range 12 {
		c.add(wait.Wait)
		if err := try("root", "wrong", "203.0.113.1"); !errors.Is(err, ErrCredentials) {
			t.Fatal(err)
		}
		if err := try("root", "wrong", "203.0.113.1"); !errors.As(err, &wait) {
			t.Fatal(err)
		}
		waits = append(waits, wait.Wait)
	}
	if waits[0] != 2*time.Second || waits[1] != 4*time.Second || waits[11] != longestWait {
		t.Errorf("waits %v", waits)
	}
	c.add(longestWait)
	if err := try("root", good, "203.0.113.1"); err != nil {
		t.Errorf("after waiting: %v", err)
	}
	// Many accounts from one address are one guesser.
	n := 0
	for i := range 2 * addressTries {
		if errors.Is(try(fmt.Sprintf("user%d", i), "wrong", "203.0.113.2"), ErrThrottled) {
			n++
		}
	}
	if n != addressTries {
		t.Errorf("%d of %d tries from one address were throttled", n, 2*addressTries)
	}
	for i := range 2 * maxThrottled {
		_ = d.throttle.begin(c.now(), tryKey{fmt.Sprint(i), 1})
	}
	if n := len(d.throttle.byKey); n > maxThrottled {
		t.Errorf("%d keys are remembered", n)
	}
	// More at once than the queue holds are refused, not piled up.
	h := newHasher(Cost{Memory: 8 << 10, Passes: 3, Threads: 1}, 2)
	var busy atomic.Int32
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if _, err := h.hash(context.Background(), good); errors.Is(err, ErrBusy) {
				busy.Add(1)
			}
		})
	}
	all.Wait()
	if busy.Load() == 0 {
		t.Error("a hundred passwords were checked at once")
	}
}

// An unknown name costs the same work as a known one: what takes the time is
// counted, since clocks of a busy machine prove nothing.
func TestS07UnknownUsersTakeAsLong(t *testing.T) {
	d, _, _ := directory(t, t.TempDir(), Cost{Memory: 4 << 10, Passes: 2, Threads: 1})
	least := func(user string) time.Duration {
		best := time.Hour
		for i := range 15 {
			began := time.Now()
			_, err := d.Login(t.Context(), Credentials{User: user, Password: "wrong password", Client: Client{Addr: fmt.Sprint(user, i)}})
			if !errors.Is(err, ErrCredentials) {
				t.Fatal(err)
			}
			best = min(best, time.Since(began))
		}
		return best
	}
	hash := func(phc string) time.Duration {
		best := time.Hour
		for range 15 {
			began := time.Now()
			if ok, err := d.hasher.check(t.Context(), phc, "wrong password"); ok || err != nil {
				t.Fatal(ok, err)
			}
			best = min(best, time.Since(began))
		}
		return best
	}
	cost, salt, sum, err := parsePHC(d.hasher.nobody)
	known, _, knownSum, err2 := parsePHC(d.users["root"].Hash)
	if err != nil || err2 != nil || cost != known || len(sum) != len(knownSum) || len(salt) != saltSize {
		t.Errorf("the work differs: %+v %+v", cost, known)
	}
	t.Logf("login of a known and an unknown name: %v, %v; the hash alone: %v, %v", least("root"), least("nobody"), hash(d.users["root"].Hash), hash(""))
}

func TestS09Tokens(t *testing.T) {
	d, c, _ := directory(t, t.TempDir(), cheap())
	g := login(t, d, "root", ByJWT)
	if a, err := d.Bearer(g.Access, Client{}); err != nil || a.User != "root" || !a.May(ManageUsers) {
		t.Fatal(a, err)
	}
	now := c.now()
	base := func() jwt.MapClaims {
		return jwt.MapClaims{"iss": issuer, "aud": audience, "sub": "root", "sid": g.Actor.Session, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Minute).Unix()}
	}
	sign := func(method jwt.SigningMethod, key any, header map[string]any, change func(jwt.MapClaims)) string {
		m := base()
		if change != nil {
			change(m)
		}
		tok := jwt.NewWithClaims(method, m)
		tok.Header["typ"], tok.Header["kid"] = tokenType, d.signer.id
		for k, v := range header {
			tok.Header[k] = v
		}
		text, err := tok.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	ours := d.signer.key
	_, foreign, _ := ed25519.GenerateKey(nil)
	if _, err := d.Bearer(sign(jwt.SigningMethodEdDSA, ours, nil, nil), Client{}); err != nil {
		t.Fatalf("the control: %v", err)
	}
	part := strings.Split(g.Access, ".")
	b64 := base64.RawURLEncoding
	mac := hmac.New(sha256.New, ours.Public().(ed25519.PublicKey))
	hs := b64.EncodeToString([]byte(`{"alg":"HS256","typ":"at+jwt","kid":"`+d.signer.id+`"}`)) + "." + part[1]
	mac.Write([]byte(hs))
	for name, token := range map[string]string{
		"none":               sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil, nil),
		"public key as HMAC": hs + "." + b64.EncodeToString(mac.Sum(nil)),
		"HS384":              sign(jwt.SigningMethodHS384, []byte("secret"), nil, nil),
		"foreign key":        sign(jwt.SigningMethodEdDSA, foreign, nil, nil),
		"no signature":       part[0] + "." + part[1] + ".",
		"no exp":             sign(jwt.SigningMethodEdDSA, ours, nil, func(m jwt.MapClaims) { delete(m, "exp") }),
		"exp in the past":    sign(jwt.SigningMethodEdDSA, ours, nil, func(m jwt.MapClaims) { m["exp"] = now.Add(-time.Second).Unix() }),
		"nbf to come":        sign(jwt.SigningMethodEdDSA, ours, nil, func(m jwt.MapClaims) { m["nbf"] = now.Add(time.Minute).Unix() }),
		"iat to come":        sign(jwt.SigningMethodEdDSA, ours, nil, func(m jwt.MapClaims) { m["iat"] = now.Add(time.Minute).Unix() }),
		"wrong aud":          sign(jwt.SigningMethodEdDSA, ours, nil, func(m jwt.MapClaims) { m["aud"] = "other" }),
		"no aud":             sign(jwt.SigningMethodEdDSA, ours, nil, func(m jwt.MapClaims) { delete(m, "aud") }),
		"wrong iss":          sign(jwt.SigningMethodEdDSA, ours, nil, func(m jwt.MapClaims) { m["iss"] = "other" }),
		"another user":       sign(jwt.SigningMethodEdDSA, ours, nil, func(m jwt.MapClaims) { m["sub"] = "other" }),
		"no session":         sign(jwt.SigningMethodEdDSA, ours, nil, func(m jwt.MapClaims) { delete(m, "sid") }),
		"another session":    sign(jwt.SigningMethodEdDSA, ours, nil, func(m jwt.MapClaims) { m["sid"] = "other" }),
		"wrong typ":          sign(jwt.SigningMethodEdDSA, ours, map[string]any{"typ": "JWT"}, nil),
		"kid traversal":      sign(jwt.SigningMethodEdDSA, ours, map[string]any{"kid": "../../dev/null"}, nil),
		"kid number":         sign(jwt.SigningMethodEdDSA, ours, map[string]any{"kid": 1}, nil),
		"refresh token":      g.Refresh, "empty": "", "dots": "..", "rubbish": "a.b.c",
		"api token": tokenPrefix + "x.y", "api token without secret": tokenPrefix,
	} {
		if a, err := d.Bearer(token, Client{}); err == nil || a.Known() {
			t.Errorf("%s is accepted: %+v", name, a)
		}
	}
	// It ends by itself, with the session, and with what the user may do.
	c.add(5 * time.Minute)
	if _, err := d.Bearer(g.Access, Client{}); err == nil {
		t.Error("accepted after five minutes")
	}
	end := map[string]func(Actor) error{
		"logout": func(a Actor) error { return d.Logout(t.Context(), a) },
		"new password": func(Actor) error {
			p := Secret(good)
			_, err := d.UpdateUser(t.Context(), root(), "eve", 0, UserChange{Password: &p})
			return err
		},
		"new role": func(Actor) error {
			role := Operator
			_, err := d.UpdateUser(t.Context(), root(), "eve", 0, UserChange{Role: &role})
			return err
		},
		"new scope": func(Actor) error {
			scope := Scope{"region": "eu"}
			_, err := d.UpdateUser(t.Context(), root(), "eve", 0, UserChange{Scope: &scope})
			return err
		},
		"disabled": func(Actor) error {
			yes := true
			_, err := d.UpdateUser(t.Context(), root(), "eve", 0, UserChange{Disabled: &yes})
			return err
		},
		"deleted": func(Actor) error { return d.DeleteUser(t.Context(), root(), "eve", 0) },
	}
	for name, f := range end {
		_ = d.DeleteUser(t.Context(), root(), "eve", 0) // of the round before, if it is there
		if _, err := d.CreateUser(t.Context(), root(), NewUser{Name: "eve", Password: good, Role: Viewer}); err != nil {
			t.Fatal(err)
		}
		j, k := login(t, d, "eve", ByJWT), login(t, d, "eve", ByCookie)
		if _, err := d.Cookie(k.Cookie, Client{}); err != nil {
			t.Fatal(err)
		}
		if err := f(j.Actor); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := d.Bearer(j.Access, Client{}); err == nil {
			t.Errorf("%s: the token goes on", name)
		}
		if _, err := d.Renew(j.Actor); err == nil {
			t.Errorf("%s: a stream goes on", name)
		}
		if _, err := d.Refresh(t.Context(), j.Refresh, Client{}); err == nil {
			t.Errorf("%s: the refresh token goes on", name)
		}
		if _, err := d.Cookie(k.Cookie, Client{}); err == nil && name != "logout" {
			t.Errorf("%s: the other session goes on", name)
		}
	}
}

func TestS09RefreshTokensAreGoodOnce(t *testing.T) {
	dir := t.TempDir()
	d, c, l := directory(t, dir, cheap())
	g := login(t, d, "root", ByJWT)
	second, err := d.Refresh(t.Context(), g.Refresh, Client{})
	if err != nil || second.Refresh == g.Refresh {
		t.Fatal(err)
	}
	// It outlives a restart, which access tokens do not.
	d2, err := Open(l, Options{Cost: cheap(), Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d2.Bearer(second.Access, Client{}); err == nil {
		t.Error("an access token outlived a restart")
	}
	third, err := d2.Refresh(t.Context(), second.Refresh, Client{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d2.Bearer(third.Access, Client{}); err != nil {
		t.Error(err)
	}
	// A wrong one harms nobody; one that was used ends the session for all.
	id, _, _ := strings.Cut(third.Refresh, ".")
	if _, err := d2.Refresh(t.Context(), id+".guess", Client{}); err == nil {
		t.Error("a guess is accepted")
	}
	if _, err := d2.Bearer(third.Access, Client{}); err != nil {
		t.Error("a guess ended the session")
	}
	if _, err := d2.Refresh(t.Context(), g.Refresh, Client{}); err == nil {
		t.Error("a used token is accepted")
	}
	if _, err := d2.Bearer(third.Access, Client{}); err == nil {
		t.Error("the session goes on after a used token was shown")
	}
	if _, err := d2.Refresh(t.Context(), third.Refresh, Client{}); err == nil {
		t.Error("the newest refresh token goes on")
	}
	// An idle session ends, and so does an old one.
	k := login(t, d2, "root", ByCookie)
	for range 23 {
		c.add(30 * time.Minute)
		if _, err := d2.Cookie(k.Cookie, Client{}); err != nil {
			t.Fatal(err)
		}
	}
	c.add(30 * time.Minute)
	if _, err := d2.Cookie(k.Cookie, Client{}); err == nil {
		t.Error("a session of twelve hours goes on")
	}
	idle := login(t, d2, "root", ByCookie)
	c.add(time.Hour)
	if _, err := d2.Cookie(idle.Cookie, Client{}); err == nil {
		t.Error("a session that was idle for an hour goes on")
	}
}

func TestLastAdminStays(t *testing.T) {
	d, _, _ := directory(t, t.TempDir(), cheap())
	viewer, yes, scope := Viewer, true, Scope{"a": "b"}
	for _, c := range []UserChange{{Role: &viewer}, {Disabled: &yes}, {Scope: &scope}} {
		if _, err := d.UpdateUser(t.Context(), root(), "root", 0, c); err == nil {
			t.Errorf("%+v takes the last administrator away", c)
		}
	}
	if err := d.DeleteUser(t.Context(), root(), "root", 0); err == nil {
		t.Error("the last administrator was deleted")
	}
	if _, err := d.CreateUser(t.Context(), root(), NewUser{Name: "second", Password: good, Role: Admin}); err != nil {
		t.Fatal(err)
	}
	// Two administrators that demote each other at the same time leave one.
	var all sync.WaitGroup
	var failed atomic.Int32
	for _, name := range []string{"root", "second"} {
		all.Go(func() {
			if _, err := d.UpdateUser(context.Background(), root(), name, 0, UserChange{Role: &viewer}); err != nil {
				failed.Add(1)
			}
		})
	}
	all.Wait()
	if failed.Load() != 1 {
		t.Errorf("%d of two changes were refused", failed.Load())
	}
}

func TestNobodyGivesMoreThanTheyHave(t *testing.T) {
	d, _, _ := directory(t, t.TempDir(), cheap())
	if _, err := d.PutRole(t.Context(), root(), Role{Name: "hr", Permissions: Of(ManageUsers, ViewSites)}, true); err != nil {
		t.Fatal(err)
	}
	hr := Actor{User: "hr", Role: "hr", Permissions: Of(ManageUsers, ViewSites)}
	for what, f := range map[string]func() error{
		"an admin": func() error {
			_, err := d.CreateUser(t.Context(), hr, NewUser{Name: "x", Password: good, Role: Admin})
			return err
		},
		"an admin's password": func() error {
			p := Secret(good)
			_, err := d.UpdateUser(t.Context(), hr, "root", 0, UserChange{Password: &p})
			return err
		},
		"an admin's end": func() error { return d.DeleteUser(t.Context(), hr, "root", 0) },
		"a wide role": func() error {
			_, err := d.PutRole(t.Context(), hr, Role{Name: "w", Permissions: All}, true)
			return err
		},
		"a wide token": func() error {
			_, _, err := d.CreateToken(t.Context(), hr, "t", All, d.now().Add(time.Hour))
			return err
		},
	} {
		if err := f(); !errors.Is(err, ErrForbidden) {
			t.Errorf("%s: %v", what, err)
		}
	}
	scoped := root()
	scoped.Scope = Scope{"region": "eu"}
	if _, err := d.CreateUser(t.Context(), scoped, NewUser{Name: "y", Password: good, Role: Viewer}); !errors.Is(err, ErrForbidden) {
		t.Errorf("a wider scope: %v", err)
	}
}

func TestPermissionsJSON(t *testing.T) {
	text, err := json.Marshal(All)
	if err != nil {
		t.Fatal(err)
	}
	var back Permissions
	if err := json.Unmarshal(text, &back); err != nil || back != All {
		t.Errorf("%s: %v", text, err)
	}
	if err := json.Unmarshal([]byte(`["root"]`), &back); !errors.Is(err, ErrInvalid) {
		t.Errorf("an unknown permission: %v", err)
	}
	seed := "view_sites manage_sites view_paths test_paths view_flows delete_flows view_policies manage_policies view_metrics manage_alerts view_config manage_config"
	if got := strings.Join(All.Names()[:12], " "); got != seed {
		t.Errorf("the published twelve: %s", got)
	}
}

func FuzzParsePHC(f *testing.F) {
	f.Add("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$" + strings.Repeat("A", 43))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		c, salt, sum, err := parsePHC(s)
		if err == nil && (c.Memory > maxMemory || c.Passes > maxPasses || c.Threads == 0 || len(salt) < 8 || len(sum) < 16) {
			t.Errorf("%q: %+v", s, c)
		}
	})
}

func FuzzBearer(f *testing.F) {
	l, err := ledger.Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	defer l.Close()
	d, err := Open(l, Options{Cost: cheap()})
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"", "a.b.c", tokenPrefix + "a.b", "eyJhbGciOiJub25lIn0.e30."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := d.Bearer(s, Client{}); err == nil || a.Known() {
			t.Errorf("%q lets %+v in", s, a)
		}
		if a, err := d.Cookie(s, Client{}); err == nil || a.Known() {
			t.Errorf("the cookie %q lets %+v in", s, a)
		}
	})
}
