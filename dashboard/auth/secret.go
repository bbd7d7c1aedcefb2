package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
)

// Secret is a text that is never printed: not by fmt, not by slog, not as JSON.
type Secret string

const hidden = "***"

// String is three stars.
func (Secret) String() string { return hidden }

// GoString is three stars.
func (Secret) GoString() string { return hidden }

// LogValue is three stars.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalJSON is three stars.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// random is n random bytes as text that fits in a URL; crypto/rand does not fail.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

// digest is what is kept of a random secret: one of 256 bits needs no salt and
// no slow hash.
func digest(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}
