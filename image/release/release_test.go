package release

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

func update(t testing.TB, k *Key, info Info, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, k, info, body); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(file []byte, keys Keys) (*Manifest, []byte, error) {
	m, r, err := Open(bytes.NewReader(file), keys)
	if err != nil {
		return nil, nil, err
	}
	body, err := io.ReadAll(r)
	return m, body, err
}

func TestUpdateFile(t *testing.T) {
	k, other := GenerateKey(), GenerateKey()
	body := bytes.Repeat([]byte("kernel"), 1000)
	file := update(t, k, Info{"amd64", "v1.2", 7}, body)
	m, got, err := read(file, Keys{other.Public(), k.Public()})
	if err != nil || !bytes.Equal(got, body) || m.Seq != 7 || m.Version != "v1.2" {
		t.Fatalf("%+v, %d bytes, %v", m, len(got), err)
	}
	if _, _, err := read(file, Keys{other.Public()}); !errors.Is(err, ErrUnsigned) {
		t.Errorf("foreign key: %v", err)
	}
	if _, _, err := read(file, nil); !errors.Is(err, ErrUnsigned) {
		t.Errorf("no keys: %v", err)
	}
	if _, got, err := read(append(file[:len(file):len(file)], "more"...), Keys{k.Public()}); err != nil || !bytes.Equal(got, body) {
		t.Errorf("what follows the image is not read: %v", err)
	}
}

// Whatever byte is changed and wherever the file ends, it is refused.
func TestDamageIsFound(t *testing.T) {
	k := GenerateKey()
	file := update(t, k, Info{"amd64", "v1", 1}, []byte("a kernel and its initramfs"))
	for i := range file {
		bad := bytes.Clone(file)
		bad[i] ^= 1
		if _, _, err := read(bad, Keys{k.Public()}); err == nil {
			t.Errorf("byte %d of %d changed: accepted", i, len(file))
		}
		if _, _, err := read(file[:i], Keys{k.Public()}); err == nil {
			t.Errorf("cut at %d of %d: accepted", i, len(file))
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name  string
		image Info
		floor uint64
		want  error
	}{
		{"newer", Info{"amd64", "", 11}, 10, nil},
		{"same", Info{"amd64", "", 10}, 10, ErrOlder},
		{"older", Info{"amd64", "", 9}, 0, ErrOlder},
		{"older than what ran before", Info{"amd64", "", 12}, 15, ErrOlder},
		{"again what ran before", Info{"amd64", "", 15}, 15, nil},
		{"other machine", Info{"arm64", "", 11}, 0, ErrArch},
	} {
		m := Manifest{Info: c.image}
		if err := m.Check(Info{"amd64", "", 10}, c.floor); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys", "signing.key")
	k, created, err := LoadOrCreateKey(file)
	if err != nil || !created {
		t.Fatal(created, err)
	}
	again, created, err := LoadOrCreateKey(file)
	if err != nil || created || !again.Public().Equal(k.Public()) {
		t.Fatal(created, err)
	}
	if s := fmt.Sprintf("%v %+v %#v %x", k, k, k, k); s != "(private) (private) (private) (private)" {
		t.Errorf("a key prints as %s", s)
	}
	text, err := Keys{k.Public(), GenerateKey().Public()}.PEM()
	if err != nil {
		t.Fatal(err)
	}
	ks, err := ParseKeys(text)
	if err != nil || len(ks) != 2 || !ks[0].Equal(k.Public()) {
		t.Fatal(ks, err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(file); !errors.Is(err, ErrExposed) {
		t.Errorf("readable by all: %v", err)
	}
	if _, err := ParseKeys([]byte("nothing")); err == nil {
		t.Error("no key in the file: accepted")
	}
}

func TestSums(t *testing.T) {
	dir, k := t.TempDir(), GenerateKey()
	for _, name := range []string{"disk.raw", "oci.tar"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteSums(dir, []string{"disk.raw", "oci.tar"}, k); err != nil {
		t.Fatal(err)
	}
	if good, err := VerifySums(dir, Keys{k.Public()}); err != nil || len(good) != 2 {
		t.Fatal(good, err)
	}
	if _, err := VerifySums(dir, Keys{GenerateKey().Public()}); !errors.Is(err, ErrUnsigned) {
		t.Errorf("foreign key: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "oci.tar"), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if good, err := VerifySums(dir, Keys{k.Public()}); !errors.Is(err, ErrDigest) || len(good) != 1 {
		t.Errorf("changed file: %v %v", good, err)
	}
}

func TestRoundTrip(t *testing.T) {
	k := GenerateKey()
	rapid.Check(t, func(t *rapid.T) {
		info := Info{rapid.StringN(0, 20, 40).Draw(t, "arch"), rapid.StringN(0, 50, 100).Draw(t, "version"), rapid.Uint64Min(1).Draw(t, "seq")}
		body := rapid.SliceOfN(rapid.Byte(), 1, 1000).Draw(t, "body")
		var b bytes.Buffer
		if err := Write(&b, k, info, body); err != nil {
			t.Fatal(err)
		}
		m, got, err := read(b.Bytes(), Keys{k.Public()})
		if err != nil || !bytes.Equal(got, body) || m.Seq != info.Seq {
			t.Fatal(m, err)
		}
	})
}

func FuzzOpen(f *testing.F) {
	k := GenerateKey()
	f.Add(update(f, k, Info{"amd64", "v1", 1}, []byte("payload")))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, file []byte) {
		if _, _, err := read(file, Keys{GenerateKey().Public()}); err == nil {
			t.Fatal("accepted without a trusted key")
		}
	})
}
