package release

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrExposed means that others than the owner can read a signing key.
var ErrExposed = errors.New("readable by others")

// Key signs images (Ed25519, RFC 8032). It never prints.
type Key struct {
	private func() ed25519.PrivateKey // fmt reads fields by reflection; of a function it shows an address
}

// GenerateKey makes a key from the system's random source.
func GenerateKey() *Key {
	_, private, _ := ed25519.GenerateKey(nil) // never fails: it ends the program instead
	return &Key{private: func() ed25519.PrivateKey { return private }}
}

// LoadKey reads a PKCS #8 PEM file that only its owner can read.
func LoadKey(file string) (*Key, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("signing key %s: mode %04o: %w; run chmod 600 on it", file, info.Mode().Perm(), ErrExposed)
	}
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	if block, _ := pem.Decode(text); block != nil && block.Type == "PRIVATE KEY" {
		if parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if private, ok := parsed.(ed25519.PrivateKey); ok {
				return &Key{private: func() ed25519.PrivateKey { return private }}, nil
			}
		}
	}
	return nil, fmt.Errorf("signing key %s: not an Ed25519 key in PKCS #8 PEM", file) // the cause may quote the key
}

// LoadOrCreateKey reads the key, or makes one and keeps it with mode 0600.
func LoadOrCreateKey(file string) (key *Key, created bool, err error) {
	key, err = LoadKey(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	key = GenerateKey()
	der, err := x509.MarshalPKCS8PrivateKey(key.private())
	if err != nil {
		return nil, false, fmt.Errorf("signing key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, false, fmt.Errorf("signing key: %w", err)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, false, fmt.Errorf("signing key: %w", err)
	}
	err = pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, false, fmt.Errorf("signing key: %w", err)
	}
	return key, true, nil
}

// Public is what others verify with.
func (k *Key) Public() ed25519.PublicKey { return k.private().Public().(ed25519.PublicKey) }

// String is "(private)".
func (k *Key) String() string { return "(private)" }

// Format writes "(private)" whatever the verb.
func (k *Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "(private)") }

func (k *Key) sign(context string, message []byte) []byte {
	return ed25519.Sign(k.private(), append([]byte(context), message...))
}

// Keys are those whose images are accepted: any of them will do, so that one
// can replace another while both are trusted.
type Keys []ed25519.PublicKey

func (ks Keys) verify(context string, message, signature []byte) bool {
	signed := append([]byte(context), message...)
	for _, k := range ks {
		if len(k) == ed25519.PublicKeySize && ed25519.Verify(k, signed, signature) {
			return true
		}
	}
	return false
}

// PEM is the text that [ParseKeys] reads.
func (ks Keys) PEM() ([]byte, error) {
	var text []byte
	for _, k := range ks {
		der, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			return nil, fmt.Errorf("public key: %w", err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	return text, nil
}

// ParseKeys reads one or more Ed25519 public keys in PEM.
func ParseKeys(text []byte) (Keys, error) {
	var ks Keys
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("public key: %w", err)
		}
		k, ok := parsed.(ed25519.PublicKey)
		if !ok {
			return nil, errors.New("public key: not an Ed25519 key")
		}
		ks = append(ks, k)
	}
	if len(ks) == 0 {
		return nil, errors.New("public key: no PEM block in the file")
	}
	return ks, nil
}

// LoadKeys reads a file of public keys.
func LoadKeys(file string) (Keys, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return ParseKeys(text)
}
