package configs

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// ErrExposed means that a file with a secret can be read by its group or by
// everybody; the error that wraps it names the file and the remedy.
var ErrExposed = errors.New("readable by others")

// PrivateKey is a WireGuard private key. It prints as "(private)" in every
// format, even inside other values, and cannot be marshalled. The zero value
// is no key. It is safe to copy and to share.
type PrivateKey struct {
	// A function, because fmt reads unexported fields by reflection, past any
	// Format method, and follows pointers: of a function it shows the address.
	secret func() [32]byte
}

// GenerateKey makes a new private key from the system's random source.
func GenerateKey() PrivateKey {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program instead
	return clamp(b)
}

// clamp fixes the bits that X25519 fixes (RFC 7748, 5), so that one key has one text.
func clamp(b [32]byte) PrivateKey {
	b[0] &= 248
	b[31] = b[31]&127 | 64
	return PrivateKey{secret: func() [32]byte { return b }}
}

// ParsePrivateKey reads the base64 form; errors do not repeat the text.
func ParsePrivateKey(text string) (PrivateKey, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != 32 {
		return PrivateKey{}, errors.New("not a WireGuard private key: 32 bytes in base64")
	}
	if subtle.ConstantTimeCompare(b, make([]byte, 32)) == 1 {
		return PrivateKey{}, errors.New("not a WireGuard private key: all zero")
	}
	return clamp([32]byte(b)), nil
}

// LoadPrivateKey reads a file that holds one key in base64, as `wg genkey`
// writes it. A file that its group or others can access is refused with
// [ErrExposed].
func LoadPrivateKey(file string) (PrivateKey, error) {
	text, err := readSecret(file)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("load private key: %w", err)
	}
	k, err := ParsePrivateKey(strings.TrimSpace(string(text)))
	if err != nil {
		return PrivateKey{}, fmt.Errorf("load private key: %s: %w", file, err)
	}
	return k, nil
}

// WriteFile keeps the key in a new file of mode 0600; it never overwrites one.
func (k PrivateKey) WriteFile(file string) error {
	if err := writeSecret(file, []byte(k.Reveal()+"\n")); err != nil {
		return fmt.Errorf("write private key: %w", err)
	}
	return nil
}

// IsZero reports whether there is no key.
func (k PrivateKey) IsZero() bool { return k.secret == nil }

// Public is the public key; that of the zero value is zero.
func (k PrivateKey) Public() Key {
	if k.secret == nil {
		return Key{}
	}
	b := k.secret()
	private, err := ecdh.X25519().NewPrivateKey(b[:])
	if err != nil {
		return Key{} // only a wrong length, which the type rules out
	}
	return Key(private.PublicKey().Bytes())
}

// Bytes is a copy of the secret, for the tunnel that uses it.
func (k PrivateKey) Bytes() [32]byte {
	if k.secret == nil {
		return [32]byte{}
	}
	return k.secret()
}

// Reveal is the secret in base64, for the file or the person it is made for.
func (k PrivateKey) Reveal() string {
	if k.secret == nil {
		return ""
	}
	b := k.secret()
	return base64.StdEncoding.EncodeToString(b[:])
}

// Equal compares in constant time.
func (k PrivateKey) Equal(other PrivateKey) bool {
	a, b := k.Bytes(), other.Bytes()
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// String is "(private)".
func (k PrivateKey) String() string { return hidden }

// Format writes "(private)" whatever the verb.
func (k PrivateKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// MarshalText refuses: a secret does not travel.
func (k PrivateKey) MarshalText() ([]byte, error) { return nil, errHidden }

const hidden = "(private)"

var errHidden = errors.New("a private key is not marshalled")

// readSecret reads a small regular file that only its owner can access. The
// checks are made on the open file, so that it cannot be exchanged in between.
func readSecret(file string) ([]byte, error) {
	// O_NONBLOCK: opening a named pipe must not wait for its writer.
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, &fs.PathError{Op: "read", Path: file, Err: errors.New("not a regular file")}
	case info.Mode().Perm()&0o077 != 0:
		return nil, &fs.PathError{Op: "read", Path: file, Err: fmt.Errorf("mode %04o: %w; run chmod 600 on it", info.Mode().Perm(), ErrExposed)}
	}
	const most = 4096
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && len(text) > most {
		err = &fs.PathError{Op: "read", Path: file, Err: errors.New("too long for a key")}
	}
	return text, err
}

// writeSecret makes a new file of mode 0600 and waits until it is on disk.
func writeSecret(file string, text []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := writeSync(f, text); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	return syncDir(file)
}
