package configs

import (
	"encoding/binary"
	"errors"
	"reflect"
	"testing"
)

// controller makes a controller's key and its certificate.
func controller(t testing.TB, root *RootKey, term uint64) (*RootKey, Controller, []byte) {
	t.Helper()
	key := GenerateRootKey()
	c := Controller{Fabric: "acme", Site: "hq", Term: term, Key: key.Public(), IssuedAt: issued}
	certificate, err := root.Certify(c)
	if err != nil {
		t.Fatal(err)
	}
	return key, c, certificate
}

func delegated(t testing.TB, key *RootKey, certificate []byte, epoch, number uint64) []byte {
	t.Helper()
	r, err := NewRevision(small(t, 2000+int(number)), epoch, number, issued, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.SignDelegated(key, certificate)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestControllerRoundTrip(t *testing.T) {
	root := GenerateRootKey()
	key, c, certificate := controller(t, root, 4)
	back, err := VerifyController(certificate, root.Public())
	if err != nil || !reflect.DeepEqual(*back, c) {
		t.Fatalf("sent %+v, got %+v, %v", c, back, err)
	}
	r, err := Verify(delegated(t, key, certificate, 4, 9), root.Public())
	if err != nil || r.Number != 9 || !reflect.DeepEqual(*r.Controller, c) {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestDelegatedEveryByteCounts(t *testing.T) {
	root := GenerateRootKey()
	key, _, certificate := controller(t, root, 4)
	b := delegated(t, key, certificate, 4, 9)
	for i := range b {
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			b[i] ^= flip
			if _, err := Verify(b, root.Public()); err == nil {
				t.Fatalf("byte %d of %d xor %#x was not noticed", i, len(b), flip)
			}
			b[i] ^= flip
		}
		if _, err := Verify(b[:i], root.Public()); err == nil {
			t.Fatalf("%d of %d bytes were enough", i, len(b))
		}
	}
}

// TestForgedControllers are ways to sign without being the controller of the term.
func TestForgedControllers(t *testing.T) {
	root, other := GenerateRootKey(), GenerateRootKey()
	key, c, certificate := controller(t, root, 4)
	stranger, _, strange := controller(t, other, 4)
	otherFabric := c
	otherFabric.Fabric = "other"
	elsewhere, err := root.Certify(otherFabric)
	if err != nil {
		t.Fatal(err)
	}
	asRevision := numbered(t, root, 1, 1)
	long := make([]byte, maxCertificate+1)
	nested := func() []byte { // a delegated revision within a delegated one
		b := []byte(delegatedMagic)
		b = binary.BigEndian.AppendUint16(b, uint16(len(certificate)))
		b = append(b, certificate...)
		return append(b, delegated(t, key, certificate, 4, 9)...)
	}()
	for name, tc := range map[string]struct {
		signed []byte
		want   error
	}{
		"no certificate":                {delegated(t, key, nil, 4, 9), ErrMalformed},
		"certificate of another root":   {delegated(t, stranger, strange, 4, 9), ErrCertificate},
		"key of another":                {delegated(t, stranger, certificate, 4, 9), ErrSignature},
		"the root with a certificate":   {delegated(t, root, certificate, 4, 9), ErrSignature},
		"an older term":                 {delegated(t, key, certificate, 3, 9), ErrTerm},
		"a newer term":                  {delegated(t, key, certificate, 5, 9), ErrTerm},
		"certificate of another fabric": {delegated(t, key, elsewhere, 4, 9), ErrFabric},
		"a revision as certificate":     {delegated(t, key, asRevision[:min(len(asRevision), maxCertificate)], 4, 9), ErrMalformed},
		"the controller without it":     {numbered(t, key, 4, 9), ErrSignature},
		"nested":                        {nested, ErrMalformed},
		"only the words":                {[]byte(delegatedMagic), ErrMalformed},
	} {
		if r, err := Verify(tc.signed, root.Public()); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, %v, want %v", name, r, err, tc.want)
		}
	}
	r, err := NewRevision(small(t, 2000), 4, 9, issued, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.SignDelegated(key, long); !errors.Is(err, ErrMalformed) {
		t.Errorf("a long certificate: %v", err)
	}
	for name, c := range map[string]Controller{
		"no fabric": {Site: "hq", Term: 1, Key: c.Key},
		"no site":   {Fabric: "acme", Term: 1, Key: c.Key},
		"no term":   {Fabric: "acme", Site: "hq", Key: c.Key},
		"no key":    {Fabric: "acme", Site: "hq", Term: 1},
	} {
		if _, err := root.Certify(c); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTermFences lets a new controller take over from an older one.
func TestTermFences(t *testing.T) {
	root := GenerateRootKey()
	oldKey, _, oldCertificate := controller(t, root, 2)
	newKey, _, newCertificate := controller(t, root, 3)
	s, _, err := OpenStore(t.TempDir(), "acme", "hq", root.Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name   string
		signed []byte
		want   error
	}{
		{"the site's own", numbered(t, root, 1, 1), nil},
		{"a controller", delegated(t, oldKey, oldCertificate, 2, 2), nil},
		{"a newer controller, from number 1 on", delegated(t, newKey, newCertificate, 3, 1), nil},
		{"the older one, with a higher number", delegated(t, oldKey, oldCertificate, 2, 900), ErrStale},
		{"the site's own again", numbered(t, root, 1, 901), ErrStale},
	} {
		if _, err := s.Save(step.signed); !errors.Is(err, step.want) {
			t.Errorf("%s: %v, want %v", step.name, err, step.want)
		}
	}
}

// TestJoinedRoot lets a site trust another root beside its own.
func TestJoinedRoot(t *testing.T) {
	own, other := GenerateRootKey(), GenerateRootKey()
	key, _, certificate := controller(t, other, 2)
	dir := t.TempDir()
	s, _, err := OpenStore(dir, "acme", "hq", own.Public())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Save(numbered(t, own, 1, 1)); err != nil {
		t.Fatal(err)
	}
	foreign := delegated(t, key, certificate, 2, 1)
	if _, err := s.Save(foreign); !errors.Is(err, ErrCertificate) {
		t.Errorf("before it joined: %v", err)
	}
	s.Trust(own.Public(), other.Public())
	if _, err := s.Save(foreign); err != nil {
		t.Fatal(err)
	}
	if _, damage, err := OpenStore(dir, "acme", "hq", own.Public(), other.Public()); err != nil || damage != nil {
		t.Errorf("opened again: %v, %v", damage, err)
	}
	if _, _, err := OpenStore(dir, "acme", "hq"); err != nil {
		t.Error(err)
	}
	s.Trust()
	if _, err := s.Save(foreign); !errors.Is(err, ErrSignature) {
		t.Errorf("without any root: %v", err)
	}
}

func FuzzController(f *testing.F) {
	root := GenerateRootKey()
	key, _, certificate := controller(f, root, 4)
	f.Add(certificate)
	f.Add(delegated(f, key, certificate, 4, 9))
	f.Fuzz(func(t *testing.T, b []byte) {
		// Nobody but the holders of the keys makes what passes, and they are the seeds.
		if c, err := VerifyController(b, root.Public()); err == nil && c.Term != 4 {
			t.Errorf("accepted %+v", c)
		}
		if r, err := Verify(b, root.Public()); err == nil && r.Number != 9 {
			t.Errorf("accepted %+v", r)
		}
	})
}
