package configs

import (
	"encoding/base64"
	"fmt"
)

// Key is a Curve25519 public key as WireGuard writes it: 32 bytes, base64.
type Key [32]byte

// String is the base64 form.
func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// IsZero reports whether no key was given.
func (k Key) IsZero() bool { return k == Key{} }

// MarshalText writes the base64 form.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads the base64 form and refuses anything but 32 bytes.
func (k *Key) UnmarshalText(text []byte) error {
	b, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil {
		return fmt.Errorf("not base64: %w", err)
	}
	if len(b) != len(k) {
		return fmt.Errorf("a key has %d bytes, this one %d", len(k), len(b))
	}
	copy(k[:], b)
	return nil
}
