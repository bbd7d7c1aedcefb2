package appliance

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"patronus/configs"
)

// fabricKeys are the sites of a test with their keys.
type fabricKeys struct {
	sites []configs.Site
	keys  map[string]*configs.RootKey
}

func newFabricKeys(names ...string) *fabricKeys {
	f := &fabricKeys{keys: map[string]*configs.RootKey{}}
	for _, n := range names {
		f.sites = append(f.sites, configs.Site{Name: n, Uplinks: []configs.Uplink{
			{Name: "wan0", PublicKey: configs.GenerateKey().Public()}, {Name: "lte0", PublicKey: configs.GenerateKey().Public()},
		}})
		f.keys[n] = configs.GenerateRootKey()
	}
	return f
}

func (f *fabricKeys) open(t *testing.T, file, self string) *Roles {
	t.Helper()
	r, damage, err := OpenRoles(file, "lab", self)
	if err != nil || damage != nil {
		t.Fatal(err, damage)
	}
	r.SetSites(f.sites)
	for n, k := range f.keys {
		if err := r.Pin(n, k.Public()); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (f *fabricKeys) sign(t *testing.T, site, by string, number uint64, dashboard bool) []byte {
	t.Helper()
	term := configs.Term{Fabric: "lab", Site: site, By: by, Number: number, Dashboard: dashboard, IssuedAt: time.Now().UTC()}
	signed, err := term.Sign(f.keys[by])
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func mustLearn(t *testing.T, r *Roles, signed []byte) {
	t.Helper()
	if changed, err := r.Learn(signed); err != nil || !changed {
		t.Fatal(changed, err)
	}
}

func wantHolder(t *testing.T, r *Roles, site string, term uint64) {
	t.Helper()
	if s, n, ok := r.Holder(); s != site || n != term || ok != (site != "") {
		t.Errorf("holder %q in term %d (%v), want %q in %d", s, n, ok, site, term)
	}
}

// A term rises from site to site, fences the one before, and survives a
// restart.
func TestTermsFence(t *testing.T) {
	f := newFabricKeys("hq", "east", "west")
	file := filepath.Join(t.TempDir(), "roles")
	r := f.open(t, file, "hq")
	wantHolder(t, r, "", 0)
	if err := r.Fence(1); !errors.Is(err, ErrNotDashboard) {
		t.Error(err)
	}
	mustLearn(t, r, f.sign(t, "hq", "hq", 1, true))
	wantHolder(t, r, "hq", 1)
	if err := r.Fence(1); err != nil {
		t.Error(err)
	}
	mustLearn(t, r, f.sign(t, "east", "east", 2, true))
	wantHolder(t, r, "east", 2)
	for _, term := range []uint64{1, 2} {
		if err := r.Fence(term); !errors.Is(err, ErrFenced) {
			t.Errorf("term %d: %v", term, err)
		}
	}
	if !r.Dashboard("hq") || !r.Dashboard("east") || r.Dashboard("west") {
		t.Error("hq stands by, east holds, west is none")
	}
	if _, err := r.Learn(f.sign(t, "hq", "hq", 1, true)); !errors.Is(err, ErrStaleTerm) {
		t.Error(err)
	}
	// The holder goes: nobody holds, the standby does not become it by itself.
	mustLearn(t, r, f.sign(t, "east", "east", 3, false))
	wantHolder(t, r, "", 0)
	if _, err := r.Learn(f.sign(t, "east", "east", 2, true)); !errors.Is(err, ErrStaleTerm) {
		t.Error(err)
	}
	again := f.open(t, file, "hq")
	wantHolder(t, again, "", 0)
	if again.Highest() != 3 || len(again.Statements()) != 2 {
		t.Errorf("highest %d, %d statements", again.Highest(), len(again.Statements()))
	}
	mustLearn(t, again, f.sign(t, "hq", "hq", 4, true))
	wantHolder(t, again, "hq", 4)
}

// Two sites that were promoted apart from each other agree when they meet,
// whatever the order.
func TestEqualTerms(t *testing.T) {
	f := newFabricKeys("hq", "east")
	hq, east := f.sign(t, "hq", "hq", 7, true), f.sign(t, "east", "east", 7, true)
	for _, order := range [][][]byte{{hq, east}, {east, hq}} {
		r := f.open(t, "", "hq")
		for _, s := range order {
			mustLearn(t, r, s)
		}
		wantHolder(t, r, "hq", 7) // the greater name
	}
}

// The holder may hand over and demote others; nobody else may.
func TestHandOver(t *testing.T) {
	f := newFabricKeys("hq", "east", "west")
	r := f.open(t, "", "west")
	if _, err := r.Learn(f.sign(t, "east", "hq", 1, true)); !errors.Is(err, ErrSigner) {
		t.Errorf("hq gave away what it does not have: %v", err)
	}
	mustLearn(t, r, f.sign(t, "hq", "hq", 1, true))
	mustLearn(t, r, f.sign(t, "east", "hq", 2, true))
	wantHolder(t, r, "east", 2)
	if _, err := r.Learn(f.sign(t, "west", "hq", 3, true)); !errors.Is(err, ErrSigner) {
		t.Errorf("hq gave away what it has no more: %v", err)
	}
	mustLearn(t, r, f.sign(t, "hq", "east", 3, false))
	if r.Dashboard("hq") {
		t.Error("hq was demoted by the holder")
	}
	wantHolder(t, r, "east", 2)
	if err := r.FenceSite("east", 2); err != nil {
		t.Error(err)
	}
}

func TestTermsRefused(t *testing.T) {
	f := newFabricKeys("hq", "east")
	r := f.open(t, "", "hq")
	good := f.sign(t, "east", "east", 1, true)
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		if _, err := r.Learn(bad); err == nil {
			t.Fatalf("byte %d flipped and taken", i)
		}
	}
	other := newFabricKeys("hq", "east", "mars")
	foreign := configs.Term{Fabric: "other", Site: "east", By: "east", Number: 1, Dashboard: true, IssuedAt: time.Now().UTC()}
	wrong, err := foreign.Sign(f.keys["east"])
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		signed []byte
		want   error
	}{
		"key of another": {other.sign(t, "east", "east", 1, true), configs.ErrSignature},
		"unknown site":   {other.sign(t, "mars", "mars", 1, true), ErrForeign},
		"other fabric":   {wrong, ErrForeign},
		"empty":          {nil, configs.ErrMalformed},
		"cut":            {good[:len(good)-1], configs.ErrMalformed},
		"longer":         {append(append([]byte(nil), good...), 0), configs.ErrMalformed},
	} {
		if _, err := r.Learn(c.signed); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if r.Highest() != 0 {
		t.Error("a refused term left a trace")
	}
}

// A pin holds while a WireGuard key of the site is still configured, through
// rotation one key after the other; a box with all keys new is a new box.
func TestPins(t *testing.T) {
	f := newFabricKeys("hq", "east")
	file := filepath.Join(t.TempDir(), "roles")
	r := f.open(t, file, "hq")
	mustLearn(t, r, f.sign(t, "east", "east", 1, true))
	impostor := configs.GenerateRootKey()
	rotate := func(uplink int) {
		f.sites[1].Uplinks[uplink].PublicKey = configs.GenerateKey().Public()
		r.SetSites(f.sites)
	}
	refused := func(when string) {
		t.Helper()
		if err := r.Pin("east", impostor.Public()); !errors.Is(err, ErrPin) {
			t.Errorf("%s: %v", when, err)
		}
	}
	refused("at once")
	rotate(0)
	refused("after one key")
	if err := r.Pin("east", f.keys["east"].Public()); err != nil {
		t.Fatal(err)
	}
	rotate(1)
	refused("after the other key, met in between")
	rotate(0)
	f.keys["east"] = configs.GenerateRootKey()
	if err := r.Pin("east", f.keys["east"].Public()); err != nil {
		t.Errorf("a new box: %v", err)
	}
	wantHolder(t, r, "", 0)
	if r.Highest() != 1 {
		t.Error("the term fell back")
	}
	mustLearn(t, f.open(t, file, "hq"), f.sign(t, "east", "east", 2, true))
	if err := r.Pin("mars", impostor.Public()); !errors.Is(err, ErrForeign) {
		t.Error(err)
	}
}

// A damaged file is set aside and told; what is good of a file stays.
func TestRolesDamaged(t *testing.T) {
	f := newFabricKeys("hq", "east")
	file := filepath.Join(t.TempDir(), "roles")
	r := f.open(t, file, "hq")
	mustLearn(t, r, f.sign(t, "east", "east", 5, true))
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range text {
		bad := append([]byte(nil), text...)
		bad[i] ^= 0x10
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		r, _, err := OpenRoles(file, "lab", "hq")
		if err != nil {
			t.Fatalf("byte %d: %v", i, err)
		}
		r.SetSites(f.sites)
		if s, n, ok := r.Holder(); ok && (s != "east" || n != 5) {
			t.Fatalf("byte %d: %s holds term %d", i, s, n)
		}
	}
}
