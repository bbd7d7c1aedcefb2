package configs

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
)

// Key is a Curve25519 public key as WireGuard writes it: 32 bytes, base64.
type Key [32]byte

// ParseKey reads the base64 form.
func ParseKey(text string) (Key, error) {
	var k Key
	err := k.UnmarshalText([]byte(text))
	return k, err
}

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

// lowOrder are the encodings of the points of low order, little-endian, with
// the top bit clear (RFC 7748, 6.1; https://cr.yp.to/ecdh.html#validate). With
// such a key the shared secret is zero whatever the private key is.
const lowOrder = "" +
	"0000000000000000000000000000000000000000000000000000000000000000" +
	"0100000000000000000000000000000000000000000000000000000000000000" +
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800" +
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157" +
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f" +
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f" +
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"

// weak reports whether no private key can have made k: it is a point of low
// order, or its top bit is set, which X25519 ignores and never writes, so
// that two texts would be one key.
func (k Key) weak() bool {
	if k[31]&0x80 != 0 {
		return true
	}
	text := hex.EncodeToString(k[:])
	for i := 0; i < len(lowOrder); i += len(text) {
		if lowOrder[i:i+len(text)] == text {
			return true
		}
	}
	return false
}
