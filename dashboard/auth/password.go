package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// Cost is what one check of a password takes.
type Cost struct {
	Memory  uint32 // KiB
	Passes  uint32
	Threads uint8
}

// DefaultCost is 19 MiB and two passes, OWASP's least for argon2id: a box with
// 512 MB has to afford two of them at once.
func DefaultCost() Cost { return Cost{Memory: 19 << 10, Passes: 2, Threads: 1} }

const (
	saltSize = 16
	hashSize = 32
	// Bounds of costs that are read from a stored hash.
	maxMemory = 256 << 10
	maxPasses = 16

	minPassword = 12  // characters
	maxPassword = 256 // bytes
)

// errHash means a stored password hash cannot be read.
var errHash = errors.New("unreadable password hash")

// hasher checks passwords, few at a time: each takes megabytes.
type hasher struct {
	cost  Cost
	slots chan struct{} // held while hashing
	queue chan struct{} // held while hashing or waiting
	// nobody is compared with when there is no such user, so that both take
	// equally long.
	nobody string
}

// newHasher allows as many checks at a time as given, and eight times as many
// to wait.
func newHasher(cost Cost, atOnce int) *hasher {
	h := &hasher{cost: cost, slots: make(chan struct{}, atOnce), queue: make(chan struct{}, 9*atOnce)}
	h.nobody = h.encode(make([]byte, saltSize), make([]byte, hashSize))
	return h
}

// enter waits for a turn; leave must follow unless it fails.
func (h *hasher) enter(ctx context.Context) error {
	select {
	case h.queue <- struct{}{}:
	default:
		return ErrBusy
	}
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		<-h.queue
		return fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
	}
}

func (h *hasher) leave() { <-h.slots; <-h.queue }

// hash is a new PHC string of a password: argon2id, RFC 9106.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	if err := h.enter(ctx); err != nil {
		return "", err
	}
	defer h.leave()
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails: crypto/rand aborts the program instead
	return h.encode(salt, argon2.IDKey([]byte(password), salt, h.cost.Passes, h.cost.Memory, h.cost.Threads, hashSize)), nil
}

func (h *hasher) encode(salt, sum []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		h.cost.Memory, h.cost.Passes, h.cost.Threads, b64.EncodeToString(salt), b64.EncodeToString(sum))
}

// check reports whether a password is the one of a PHC string. An empty string
// stands for no user: it takes as long and is never right.
func (h *hasher) check(ctx context.Context, phc, password string) (bool, error) {
	if err := h.enter(ctx); err != nil {
		return false, err
	}
	defer h.leave()
	exists := phc != ""
	if !exists {
		phc = h.nobody
	}
	cost, salt, want, err := parsePHC(phc)
	if err != nil {
		return false, err
	}
	have := argon2.IDKey([]byte(password), salt, cost.Passes, cost.Memory, cost.Threads, uint32(len(want)))
	return subtle.ConstantTimeCompare(have, want) == 1 && exists, nil
}

// parsePHC takes "$argon2id$v=19$m=19456,t=2,p=1$salt$hash" apart.
func parsePHC(s string) (c Cost, salt, sum []byte, err error) {
	part := strings.Split(s, "$")
	if len(part) != 6 || part[0] != "" || part[1] != "argon2id" || part[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return c, nil, nil, errHash
	}
	if n, err := fmt.Sscanf(part[3], "m=%d,t=%d,p=%d", &c.Memory, &c.Passes, &c.Threads); err != nil || n != 3 {
		return c, nil, nil, errHash
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(part[4])
	sum, err2 := base64.RawStdEncoding.DecodeString(part[5])
	if err1 != nil || err2 != nil || len(salt) < 8 || len(sum) < 16 || len(sum) > 64 ||
		c.Memory < 8 || c.Memory > maxMemory || c.Passes < 1 || c.Passes > maxPasses || c.Threads < 1 {
		return c, nil, nil, errHash
	}
	return c, salt, sum, nil
}

// checkPassword refuses what is not worth hashing.
func checkPassword(name, password string) error {
	switch {
	case utf8.RuneCountInString(password) < minPassword:
		return &ValueError{"password", fmt.Sprintf("has fewer than %d characters", minPassword)}
	case len(password) > maxPassword:
		return &ValueError{"password", fmt.Sprintf("has more than %d bytes", maxPassword)}
	case !utf8.ValidString(password):
		return &ValueError{"password", "is not valid UTF-8"}
	case strings.EqualFold(password, strings.Repeat(name, max(1, len(password)/max(1, len(name))))):
		return &ValueError{"password", "is the user's name"}
	}
	return nil
}
