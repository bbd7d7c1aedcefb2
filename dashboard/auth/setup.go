package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"sync"
	"time"
)

// setupTries is how often a wrong setup code may be given before a restart is
// needed.
const setupTries = 5

// setup is the first login: there is no default password, but a code that only
// who reads the console knows, for a while.
type setup struct {
	mu    sync.Mutex
	code  string // empty once used
	until time.Time
	tries int
}

func (s *setup) open(now time.Time, life time.Duration, wanted bool) {
	if wanted {
		s.code, s.until = rand.Text(), now.Add(life)
	}
}

// SetupCode is the code that makes the first administrator, and until when it
// is good; ok is false if there are users already. It is for the console only.
func (d *Directory) SetupCode() (code string, until time.Time, ok bool) {
	d.setup.mu.Lock()
	defer d.setup.mu.Unlock()
	return d.setup.code, d.setup.until, d.setup.code != ""
}

// take checks a code. A right one is good for one attempt to make the user:
// the caller gives it back if that fails.
func (s *setup) take(now time.Time, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.code == "":
		return fmt.Errorf("%w: there is an administrator", ErrSetup)
	case s.tries >= setupTries:
		return fmt.Errorf("%w: too many wrong codes; restart to get a new one", ErrSetup)
	case !now.Before(s.until):
		return fmt.Errorf("%w: the code has expired; restart to get a new one", ErrSetup)
	case subtle.ConstantTimeCompare([]byte(code), []byte(s.code)) != 1:
		s.tries++
		return fmt.Errorf("%w: wrong code", ErrSetup)
	}
	s.code = ""
	return nil
}

// Setup makes the first administrator.
func (d *Directory) Setup(ctx context.Context, code string, n NewUser, c Client) (User, error) {
	if err := checkName("username", n.Name); err != nil {
		return User{}, err
	}
	if err := checkPassword(n.Name, string(n.Password)); err != nil {
		return User{}, err
	}
	if err := d.setup.take(d.now(), code); err != nil {
		return User{}, err
	}
	n.Role, n.Scope = Admin, nil
	u, err := d.CreateUser(ctx, Actor{User: n.Name, Role: Admin, Permissions: All, Client: c}, n)
	if err != nil {
		d.setup.mu.Lock()
		d.setup.code = code
		d.setup.mu.Unlock()
		return User{}, fmt.Errorf("set up: %w", err)
	}
	return u, nil
}
