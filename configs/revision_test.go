package configs

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"
)

var issued = time.Date(2026, 11, 24, 12, 0, 0, 123456789, time.UTC)

// small is a checked configuration of site hq that differs by flows.max.
func small(t testing.TB, flows int) *Config {
	t.Helper()
	c, err := New(Config{
		Fabric: "acme", Site: "hq",
		Sites: []Site{{Name: "hq", Uplinks: []Uplink{{Name: "a", PublicKey: Key{0: 9}, PrivateKeyFile: "/a"}}}},
		Flows: Flows{Max: flows},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func signed(t testing.TB, key *RootKey, r *Revision) []byte {
	t.Helper()
	b, err := r.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// numbered makes a signed revision of hq that is not linked to any before.
func numbered(t testing.TB, key *RootKey, epoch, number uint64) []byte {
	t.Helper()
	r, err := NewRevision(small(t, 2000+int(number)), epoch, number, issued, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	return signed(t, key, r)
}

func TestRevisionRoundTrip(t *testing.T) {
	key := GenerateRootKey()
	c := small(t, 5000)
	r, err := NewRevision(c, 3, 7, issued.In(time.FixedZone("x", 3600)), [32]byte{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	got, err := Verify(signed(t, key, r), key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(r, got) || got.Hash() != r.Hash() || !got.IssuedAt.Equal(issued) {
		t.Errorf("sent %+v, got %+v", r, got)
	}
	back, err := got.Config()
	if err != nil || !reflect.DeepEqual(back, c) {
		t.Errorf("another configuration came out: %v", err)
	}
}

func TestRevisionEveryByteCounts(t *testing.T) {
	key := GenerateRootKey()
	b := numbered(t, key, 1, 1)
	for i := range b {
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			b[i] ^= flip
			if _, err := Verify(b, key.Public()); !errors.Is(err, ErrSignature) && !errors.Is(err, ErrMalformed) {
				t.Fatalf("byte %d of %d xor %#x: %v", i, len(b), flip, err)
			}
			b[i] ^= flip
		}
	}
	for n := range b {
		if _, err := Verify(b[:n], key.Public()); err == nil {
			t.Fatalf("cut to %d of %d: accepted", n, len(b))
		}
	}
	if _, err := Verify(append(slices.Clone(b), 0), key.Public()); err == nil {
		t.Error("accepted with a byte after its end")
	}
	if _, err := Verify(b, key.Public()); err != nil {
		t.Errorf("the untouched one: %v", err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	key := GenerateRootKey()
	good := numbered(t, key, 1, 1)
	message := good[:len(good)-ed25519.SignatureSize]
	for name, tc := range map[string]struct {
		signed []byte
		root   ed25519.PublicKey
		want   error
	}{
		"another root":   {good, GenerateRootKey().Public(), ErrSignature},
		"no root":        {good, nil, ErrSignature},
		"nothing":        {nil, key.Public(), ErrMalformed},
		"signed by none": {append(slices.Clone(message), make([]byte, 64)...), key.Public(), ErrSignature},
		// A signature by the same key over the same content for another purpose.
		"without domain": {append(slices.Clone(message), key.sign(message[len(revisionMagic):])...), key.Public(), ErrSignature},
		"another domain": {resign(key, append([]byte("patronus-revision-v2\x00"), message[len(revisionMagic):]...)), key.Public(), ErrMalformed},
		"text after":     {resign(key, append(slices.Clone(message), 0)), key.Public(), ErrMalformed},
		"long length":    {resign(key, withLength(message, 0xffff)), key.Public(), ErrMalformed},
		"huge":           {make([]byte, maxRevision+1), key.Public(), ErrMalformed},
	} {
		if r, err := Verify(tc.signed, tc.root); !errors.Is(err, tc.want) || r != nil {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

func resign(key *RootKey, message []byte) []byte { return append(message, key.sign(message)...) }

// withLength changes the length of the fabric's name.
func withLength(message []byte, n uint16) []byte {
	out := slices.Clone(message)
	binary.BigEndian.PutUint16(out[len(revisionMagic):], n)
	return out
}

func TestSignRefuses(t *testing.T) {
	key := GenerateRootKey()
	good := Revision{Fabric: "acme", Site: "hq", Number: 1, IssuedAt: issued}
	if _, err := good.Sign(key); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Revision){
		"no fabric": func(r *Revision) { r.Fabric = "" },
		"bad site":  func(r *Revision) { r.Site = "a.b" },
		"number 0":  func(r *Revision) { r.Number = 0 },
		"no time":   func(r *Revision) { r.IssuedAt = time.Time{} },
		"too large": func(r *Revision) { r.Body = make([]byte, maxRevision) },
	} {
		r := good
		change(&r)
		if _, err := r.Sign(key); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A signed envelope whose body is for somebody else must not be run.
func TestRevisionBodyMustMatch(t *testing.T) {
	r, err := NewRevision(small(t, 5000), 1, 1, issued, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	site, fabric := *r, *r
	site.Site, fabric.Fabric = "east", "other"
	if _, err := site.Config(); !errors.Is(err, ErrSite) {
		t.Errorf("another site: %v", err)
	}
	if _, err := fabric.Config(); !errors.Is(err, ErrFabric) {
		t.Errorf("another fabric: %v", err)
	}
	bad := *r
	bad.Body = bytes.Replace(r.Body, []byte(`"max":5000`), []byte(`"max":5`), 1)
	if _, err := bad.Config(); len(FieldErrors(err)) != 1 {
		t.Errorf("a body that does not validate: %v", err)
	}
}

func open(t testing.TB, dir string, key *RootKey) *Store {
	t.Helper()
	s, damage, err := OpenStore(dir, "acme", "hq", key.Public())
	if err != nil || damage != nil {
		t.Fatal(damage, err)
	}
	return s
}

func TestStoreKeepsTwo(t *testing.T) {
	dir, key := filepath.Join(t.TempDir(), "revisions"), GenerateRootKey()
	s := open(t, dir, key)
	if s.Current() != nil || s.Previous() != nil || s.Signed() != nil {
		t.Error("an empty store has something")
	}
	for n := uint64(1); n <= 5; n++ {
		r, err := s.Issue(small(t, 2000+int(n)), key, issued)
		if err != nil || r.Number != n || r.Epoch != 1 {
			t.Fatalf("issue %d: %+v, %v", n, r, err)
		}
		same, err := s.Issue(small(t, 2000+int(n)), key, issued.Add(time.Hour))
		if err != nil || same != r {
			t.Errorf("the same configuration made revision %d, %v", same.Number, err)
		}
		for _, st := range []*Store{s, open(t, dir, key)} {
			if st.Current().Number != n || n > 1 && (st.Previous().Number != n-1 || st.Current().PrevHash != st.Previous().Hash()) {
				t.Errorf("after %d: current %d, previous %v", n, st.Current().Number, st.Previous())
			}
			if _, err := Verify(st.Signed(), key.Public()); err != nil {
				t.Error(err)
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%d files, %v", len(entries), err)
	}
}

func TestStoreRefuses(t *testing.T) {
	key := GenerateRootKey()
	s := open(t, t.TempDir(), key)
	current := numbered(t, key, 2, 10)
	if _, err := s.Save(current); err != nil {
		t.Fatal(err)
	}
	body := s.Current().Body
	of := func(fabric, site string, epoch, number uint64, body []byte) []byte {
		return signed(t, key, &Revision{
			Fabric: fabric, Site: site, Epoch: epoch, Number: number, IssuedAt: issued.Add(time.Second), Body: body,
		})
	}
	for name, tc := range map[string]struct {
		signed []byte
		want   error
	}{
		"same number, other content": {of("acme", "hq", 2, 10, body), ErrStale},
		"older number":               {numbered(t, key, 2, 9), ErrStale},
		"older epoch, higher number": {numbered(t, key, 1, 99), ErrStale},
		"not from the current one":   {numbered(t, key, 2, 11), ErrForked},
		"another key":                {numbered(t, GenerateRootKey(), 9, 99), ErrSignature},
		"another fabric":             {of("other", "hq", 9, 99, body), ErrFabric},
		"another site":               {of("acme", "east", 9, 99, body), ErrSite},
		"garbage":                    {[]byte("garbage"), ErrMalformed},
	} {
		if _, err := s.Save(tc.signed); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
		if s.Current().Number != 10 || s.Previous() != nil {
			t.Fatalf("%s: changed the store", name)
		}
	}
	if _, err := s.Save(of("acme", "hq", 9, 99, []byte("{}"))); len(FieldErrors(err)) == 0 {
		t.Errorf("a body that cannot be run: %v", err)
	}
	if r, err := s.Save(current); err != nil || r != s.Current() {
		t.Errorf("the current one again: %v", err)
	}
	if _, err := s.Save(numbered(t, key, 2, 12)); err != nil {
		t.Errorf("a gap in the numbers: %v", err)
	}
	if _, err := s.Save(numbered(t, key, 3, 1)); err != nil {
		t.Errorf("a new epoch starts over: %v", err)
	}
}

// The process may be killed at any moment of a write. Whatever it left behind,
// the newest complete revision is found, and damage is told.
func TestStoreSurvivesPartialWrites(t *testing.T) {
	key := GenerateRootKey()
	one, two := numbered(t, key, 1, 1), numbered(t, key, 1, 3)
	for name, damage := range map[string]func(dir string, n int) bool{ // reports whether a slot is damaged
		"before the rename": func(dir string, n int) bool {
			must(t, os.WriteFile(filepath.Join(dir, "revision-b.tmp"), two[:n], 0o600))
			return false
		},
		"a torn slot": func(dir string, n int) bool {
			must(t, os.WriteFile(filepath.Join(dir, "revision-b"), two[:n], 0o600))
			return true
		},
		"zeros in the slot": func(dir string, n int) bool {
			b := slices.Clone(two)
			clear(b[n:])
			if bytes.Equal(b, two) {
				b[n] = 0xff // a signature's last byte is 0 every sixteenth time
			}
			must(t, os.WriteFile(filepath.Join(dir, "revision-b"), b, 0o600))
			return true
		},
	} {
		for _, n := range []int{0, 1, 20, len(two) / 2, len(two) - 65, len(two) - 1} {
			t.Run(fmt.Sprintf("%s, %d", name, n), func(t *testing.T) {
				dir := t.TempDir()
				must(t, os.WriteFile(filepath.Join(dir, "revision-a"), one, 0o600))
				damaged := damage(dir, n)
				s, told, err := OpenStore(dir, "acme", "hq", key.Public())
				if err != nil || (told != nil) != damaged {
					t.Fatal(told, err)
				}
				if s.Current() == nil || s.Current().Number != 1 {
					t.Fatalf("current: %v", s.Current())
				}
				if _, err := s.Save(two); err != nil {
					t.Fatal(err)
				}
				if again := open(t, dir, key); again.Current().Number != 3 || again.Previous().Number != 1 {
					t.Error("not repaired by the next write")
				}
				if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); left != nil {
					t.Errorf("left %v", left)
				}
			})
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Every byte of a slot that rots makes it count as damaged, and the other serves.
func TestStoreEveryByteOfASlot(t *testing.T) {
	dir, key := t.TempDir(), GenerateRootKey()
	s := open(t, dir, key)
	for n := range 2 {
		_, err := s.Issue(small(t, 2000+n), key, issued)
		must(t, err)
	}
	file := filepath.Join(dir, "revision-b")
	good, err := os.ReadFile(file)
	must(t, err)
	for i := 0; i < len(good); i += 7 {
		bad := slices.Clone(good)
		bad[i] ^= 0x10
		must(t, os.WriteFile(file, bad, 0o600))
		s, damage, err := OpenStore(dir, "acme", "hq", key.Public())
		if err != nil || damage == nil || s.Current().Number != 1 {
			t.Fatalf("byte %d: current %v, damage %v, error %v", i, s.Current(), damage, err)
		}
	}
}

// Files of another site or root in the directory are told and left out.
func TestStoreOfAnother(t *testing.T) {
	dir, key := t.TempDir(), GenerateRootKey()
	_, err := open(t, dir, key).Issue(small(t, 2000), key, issued)
	must(t, err)
	for name, tc := range map[string]struct {
		fabric, site string
		root         ed25519.PublicKey
		want         error
	}{
		"site":   {"acme", "east", key.Public(), ErrSite},
		"fabric": {"other", "hq", key.Public(), ErrFabric},
		"root":   {"acme", "hq", GenerateRootKey().Public(), ErrSignature},
	} {
		s, damage, err := OpenStore(dir, tc.fabric, tc.site, tc.root)
		if err != nil || s.Current() != nil || !errors.Is(damage, tc.want) {
			t.Errorf("%s: %v, %v, want %v", name, damage, err, tc.want)
		}
	}
}

// A disk that refuses the write leaves the store as it was.
func TestStoreWriteFails(t *testing.T) {
	dir, key := t.TempDir(), GenerateRootKey()
	s := open(t, dir, key)
	_, err := s.Issue(small(t, 2000), key, issued)
	must(t, err)
	must(t, os.Mkdir(filepath.Join(dir, "revision-b"), 0o700)) // rename over a directory fails
	if _, err := s.Issue(small(t, 3000), key, issued); err == nil {
		t.Fatal("kept what could not be written")
	}
	if s.Current().Number != 1 {
		t.Error("the failed revision counts")
	}
	must(t, os.Remove(filepath.Join(dir, "revision-b")))
	if r, err := s.Issue(small(t, 3000), key, issued); err != nil || r.Number != 2 {
		t.Errorf("after the disk is back: %v", err)
	}
}

func FuzzRevision(f *testing.F) {
	key := newRootKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))) // the same in every process
	root := key.Public()
	good := numbered(f, key, 1, 1)
	f.Add(good, false)
	f.Add(good[:len(good)-ed25519.SignatureSize], true)
	f.Add([]byte(revisionMagic), true)
	f.Add(withLength(good[:len(good)-ed25519.SignatureSize], 3), true)
	f.Fuzz(func(t *testing.T, b []byte, sign bool) {
		if sign { // a signature lets the fuzzer reach what lies behind it
			b = resign(key, slices.Clone(b))
		}
		r, err := Verify(b, root)
		if err != nil {
			return
		}
		if !bytes.Equal(append(r.signed(), b[len(b)-ed25519.SignatureSize:]...), b) {
			t.Fatal("one revision has two encodings")
		}
		if c, err := r.Config(); err == nil && (c.Site != r.Site || c.Fabric != r.Fabric) {
			t.Fatal("a body for somebody else")
		}
	})
}
