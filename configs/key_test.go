package configs

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestPrivateKeyFile(t *testing.T) {
	dir := t.TempDir()
	k := GenerateKey()
	file := filepath.Join(dir, "a.key")
	if err := k.WriteFile(file); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := GenerateKey().WriteFile(file); !errors.Is(err, os.ErrExist) {
		t.Errorf("overwrote a key: %v", err)
	}
	back, err := LoadPrivateKey(file)
	if err != nil || !back.Equal(k) || back.Public() != k.Public() {
		t.Errorf("another key came back: %v", err)
	}
	if _, err := LoadPrivateKey(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := LoadPrivateKey(dir); err == nil {
		t.Error("read a directory")
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadPrivateKey(pipe); err == nil {
		t.Error("read a pipe")
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o602, 0o610} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadPrivateKey(file); !errors.Is(err, ErrExposed) || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	for name, text := range map[string]string{
		"empty": "", "not base64": "****", "short": "AAAA", "zero": strings.Repeat("A", 43) + "=",
		"two": k.Reveal() + "\n" + k.Reveal(), "long": strings.Repeat("A", 5000),
	} {
		bad := filepath.Join(dir, "bad")
		if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadPrivateKey(bad)
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), k.Reveal()) {
			t.Errorf("%s: the error tells the key", name)
		}
	}
}

func TestPrivateKeyIsClamped(t *testing.T) {
	k, err := ParsePrivateKey(strings.Repeat("/", 42) + "8=") // 32 times 0xff
	if err != nil {
		t.Fatal(err)
	}
	b := k.Bytes()
	if b[0] != 0xf8 || b[31] != 0x7f {
		t.Errorf("not clamped: %x", b)
	}
	for range 100 {
		if b := GenerateKey().Bytes(); b[0]&7 != 0 || b[31]&0xc0 != 0x40 {
			t.Fatalf("not clamped: %x", b)
		}
	}
}

// A pair made by wg genkey and wg pubkey.
func TestPublicKeyVector(t *testing.T) {
	k, err := ParsePrivateKey("aPvKgjlpGFufcNP7VGduXVFgz3FXzzECtzQW34Q9GU4=")
	if err != nil {
		t.Fatal(err)
	}
	if got := k.Public().String(); got != "mBWb/Mi578quIUhR3OyBeVqBwKg2KkGYt4y+xZfCFBE=" {
		t.Errorf("public key %s", got)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	k, root := GenerateKey(), GenerateRootKey()
	raw := k.Bytes()
	type inside struct {
		key  PrivateKey
		root *RootKey
		Key  PrivateKey
	}
	v := inside{k, root, k}
	needles := []string{
		k.Reveal(), hex.EncodeToString(raw[:]), strings.Trim(fmt.Sprint(raw[:8]), "[]"),
		hex.EncodeToString(root.private()[:8]), strings.Trim(fmt.Sprint([]byte(root.private()[:8])), "[]"),
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		for _, value := range []any{k, &k, root, *root, v, &v, []PrivateKey{k}, map[string]PrivateKey{"a": k}} {
			got := fmt.Sprintf(verb, value)
			for _, needle := range needles {
				if strings.Contains(strings.ToLower(got), strings.ToLower(needle)) {
					t.Errorf("%s of %T prints the secret: %s", verb, value, got)
				}
			}
		}
	}
	if _, err := json.Marshal(k); err == nil {
		t.Error("a private key was marshalled")
	}
	if _, err := json.Marshal(root); err == nil {
		t.Error("a root key was marshalled")
	}
}

func TestZeroPrivateKey(t *testing.T) {
	var k PrivateKey
	if !k.IsZero() || !k.Public().IsZero() || k.Reveal() != "" || k.String() != "(private)" || GenerateKey().IsZero() {
		t.Error("the zero value is not no key")
	}
}

func TestWeakKeys(t *testing.T) {
	private, err := ecdh.X25519().NewPrivateKey([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(lowOrder); i += 64 {
		b, err := hex.DecodeString(lowOrder[i : i+64])
		if err != nil {
			t.Fatal(err)
		}
		k := Key(b)
		if !k.weak() {
			t.Errorf("%x is accepted", b)
		}
		public, err := ecdh.X25519().NewPublicKey(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := private.ECDH(public); err == nil {
			t.Errorf("%x is not of low order", b)
		}
	}
	for range 100 {
		k := GenerateKey().Public()
		if k.weak() {
			t.Errorf("%v is refused", k)
		}
		k[31] |= 0x80
		if !k.weak() {
			t.Errorf("%v is accepted", k)
		}
	}
}

func TestKeyText(t *testing.T) {
	k := GenerateKey().Public()
	back, err := ParseKey(k.String())
	if err != nil || back != k {
		t.Errorf("%v came back as %v, %v", k, back, err)
	}
	for _, text := range []string{"", "AAAA", k.String() + "A", k.String()[:43], " " + k.String(), k.String()[:42] + "B="} {
		if _, err := ParseKey(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestRootKeyFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "deep", "root.key")
	k, created, err := LoadOrCreateRootKey(file)
	if err != nil || !created {
		t.Fatal(created, err)
	}
	again, created, err := LoadOrCreateRootKey(file)
	if err != nil || created || !again.Public().Equal(k.Public()) {
		t.Fatal("another key the second time", created, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LoadOrCreateRootKey(file); !errors.Is(err, ErrExposed) {
		t.Errorf("a readable root key: %v", err)
	}
	bad := file + ".bad"
	if err := os.WriteFile(bad, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LoadOrCreateRootKey(bad); err == nil {
		t.Error("a broken file was accepted or replaced")
	}

	public := file + ".pub"
	for _, want := range []ed25519.PublicKey{k.Public(), GenerateRootKey().Public()} {
		if err := WriteRootPublic(public, want); err != nil {
			t.Fatal(err)
		}
		if got, err := LoadRootPublic(public); err != nil || !got.Equal(want) {
			t.Errorf("another root came back: %v", err)
		}
	}
	if _, err := LoadRootPublic(bad); err == nil {
		t.Error("a private key taken for a public one")
	}
}
