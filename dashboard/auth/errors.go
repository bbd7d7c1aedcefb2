package auth

import "errors"

// What goes wrong; errors.Is finds these in what the package returns. The text
// of none of them tells whether a user exists.
var (
	// ErrCredentials: wrong user name or password, or an unusable token.
	ErrCredentials = errors.New("wrong credentials")
	// ErrThrottled: too many tries; a *ThrottledError says how long to wait.
	ErrThrottled = errors.New("too many tries")
	// ErrBusy: too many passwords are being checked right now.
	ErrBusy = errors.New("too many logins at once")
	// ErrNotFound: there is no such user, role or token.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name is taken.
	ErrExists = errors.New("already exists")
	// ErrInvalid is wrapped by everything that is wrong with a given value; a
	// *ValueError names the field.
	ErrInvalid = errors.New("invalid")
	// ErrForbidden: the actor may not do this.
	ErrForbidden = errors.New("not allowed")
	// ErrConflict: what was to be changed has changed since it was read.
	ErrConflict = errors.New("changed in the meantime")
	// ErrSetup: the setup code is wrong, used, expired or not wanted any more.
	ErrSetup = errors.New("setup is not possible")
)

// ValueError is one wrong value, of a field by its JSON name.
type ValueError struct{ Field, Why string }

func (e *ValueError) Error() string { return e.Field + ": " + e.Why }

// Is makes a ValueError an [ErrInvalid].
func (e *ValueError) Is(target error) bool { return target == ErrInvalid }
