package configs

import (
	"bytes"
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

// RootKey is the Ed25519 key (RFC 8032) that signs the revisions of a fabric.
// Like [PrivateKey] it never prints. It is immutable and safe to share.
type RootKey struct {
	private func() ed25519.PrivateKey // a function for the same reason as in PrivateKey
}

func newRootKey(private ed25519.PrivateKey) *RootKey {
	return &RootKey{private: func() ed25519.PrivateKey { return private }}
}

// GenerateRootKey makes a new root key from the system's random source.
func GenerateRootKey() *RootKey {
	_, private, _ := ed25519.GenerateKey(nil) // the system's source, which never fails: it ends the program instead
	return newRootKey(private)
}

// LoadRootKey reads the PKCS #8 PEM file that [RootKey.WriteFile] writes. A
// file that its group or others can access is refused with [ErrExposed].
func LoadRootKey(file string) (*RootKey, error) {
	text, err := readSecret(file)
	if err != nil {
		return nil, fmt.Errorf("load root key: %w", err)
	}
	const wrong = "load root key: %s: not an Ed25519 key in PKCS #8 PEM"
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf(wrong, file)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf(wrong, file) // the cause may quote the key
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf(wrong, file)
	}
	return newRootKey(private), nil
}

// LoadOrCreateRootKey reads the root key, or makes and keeps one if there is
// no file: a standalone site is a fabric of one that trusts itself.
func LoadOrCreateRootKey(file string) (key *RootKey, created bool, err error) {
	key, err = LoadRootKey(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, false, fmt.Errorf("make root key: %w", err)
	}
	key = GenerateRootKey()
	if err := key.WriteFile(file); err != nil {
		return nil, false, err
	}
	return key, true, nil
}

// WriteFile keeps the key in a new file of mode 0600; it never overwrites one.
func (k *RootKey) WriteFile(file string) error {
	der, err := x509.MarshalPKCS8PrivateKey(k.private())
	if err != nil {
		return fmt.Errorf("write root key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := writeSecret(file, text); err != nil {
		return fmt.Errorf("write root key: %w", err)
	}
	return nil
}

// Public is what others verify with.
func (k *RootKey) Public() ed25519.PublicKey { return k.private().Public().(ed25519.PublicKey) }

func (k *RootKey) sign(message []byte) []byte { return ed25519.Sign(k.private(), message) }

// proofMagic separates proofs from the signatures of revisions, terms and
// certificates.
const proofMagic = "patronus-proof-v1\x00"

// Prove signs a message of another protocol, which shows who holds the key and
// says nothing about a configuration. [VerifyProof] reads it.
func (k *RootKey) Prove(message []byte) []byte { return k.sign(append([]byte(proofMagic), message...)) }

// VerifyProof reports whether the holder of key has made a proof of message.
func VerifyProof(key ed25519.PublicKey, message, proof []byte) bool {
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, append([]byte(proofMagic), message...), proof)
}

// String is "(private)".
func (k *RootKey) String() string { return hidden }

// Format writes "(private)" whatever the verb.
func (k *RootKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// MarshalText refuses: a secret does not travel.
func (k *RootKey) MarshalText() ([]byte, error) { return nil, errHidden }

// WriteRootPublic keeps the root that an appliance trusts, as PEM; it replaces
// an older one, as joining another fabric does.
func WriteRootPublic(file string, root ed25519.PublicKey) error {
	der, err := x509.MarshalPKIXPublicKey(root)
	if err != nil {
		return fmt.Errorf("write trusted root: %w", err)
	}
	if err := ReplaceFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})); err != nil {
		return fmt.Errorf("write trusted root: %w", err)
	}
	return nil
}

// LoadRootPublic reads what [WriteRootPublic] wrote.
func LoadRootPublic(file string) (ed25519.PublicKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("load trusted root: %w", err)
	}
	if block, _ := pem.Decode(text); block != nil && block.Type == "PUBLIC KEY" {
		if parsed, err := x509.ParsePKIXPublicKey(block.Bytes); err == nil {
			if root, ok := parsed.(ed25519.PublicKey); ok {
				return root, nil
			}
		}
	}
	return nil, fmt.Errorf("load trusted root: %s: not an Ed25519 public key in PEM", file)
}
