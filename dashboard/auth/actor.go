package auth

// Kind says how an actor proved who it is.
type Kind string

// The kinds of proof.
const (
	ByCookie Kind = "session"
	ByJWT    Kind = "jwt"
	ByToken  Kind = "token"
)

// Client is where a request comes from, for the audit log and the throttle.
type Client struct{ Addr, UserAgent string }

// Actor is who makes a request, with what it may do at this moment. The zero
// Actor is nobody.
type Actor struct {
	User        string
	Role        string
	Permissions Permissions
	Scope       Scope
	Kind        Kind
	// Session is the session's or the API token's id.
	Session string
	Client  Client
}

// Known reports whether the actor is somebody.
func (a *Actor) Known() bool { return a.User != "" }

// May reports whether the actor has a permission, somewhere.
func (a *Actor) May(p Permission) bool { return a.Permissions.Has(p) }

// Everywhere reports whether the actor's rights reach the whole fabric.
func (a *Actor) Everywhere() bool { return len(a.Scope) == 0 }
