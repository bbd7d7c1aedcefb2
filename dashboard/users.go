package dashboard

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"patronus/dashboard/auth"
)

func userRoutes() []Route {
	return []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/users", Name: "listUsers", Access: fabric(auth.ManageUsers), Status: 200,
			Doc: "List the users.", Answer: Page[auth.User]{}, handle: (*Server).listUsers,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/users/:id", Name: "showUser", Access: fabric(auth.ManageUsers), Status: 200,
			Doc: "Show one user.", Answer: auth.User{}, handle: (*Server).showUser,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/users", Name: "createUser", Access: fabric(auth.ManageUsers), Status: 201, Create: true,
			Doc: "Add a user with a password.", Body: auth.NewUser{}, Answer: auth.User{}, handle: (*Server).createUser,
		},
		{
			Method: http.MethodPut, Path: "/api/v1/users/:id", Name: "updateUser", Access: fabric(auth.ManageUsers), Status: 200,
			Doc: "Change a user's role, scope or password; what is left out stays.", Body: auth.UserChange{}, Answer: auth.User{}, handle: (*Server).updateUser,
		},
		{
			Method: http.MethodDelete, Path: "/api/v1/users/:id", Name: "deleteUser", Access: fabric(auth.ManageUsers), Status: 204,
			Doc: "Remove a user with its sessions and tokens.", handle: (*Server).deleteUser,
		},
	}
}

func userTag(u *auth.User) string { return `"` + strconv.FormatUint(u.Version, 10) + `"` }

// version reads If-Match of a resource that counts its versions, 0 for any.
func (r *request) version() (uint64, error) {
	want := r.Get(fiber.HeaderIfMatch)
	if want == "" || want == "*" {
		return 0, nil
	}
	n, err := strconv.ParseUint(strings.Trim(want, `"`), 10, 64)
	if err != nil || n == 0 {
		return 0, problem(http.StatusPreconditionFailed, "changed", "it has changed since it was read: read it again")
	}
	return n, nil
}

func (s *Server) listUsers(r *request) error {
	list := s.o.Directory.Users()
	n := len(list)
	return r.answer(http.StatusOK, Page[auth.User]{Items: list, Total: &n})
}

func (s *Server) showUser(r *request) error {
	u, err := s.o.Directory.User(r.Params("id"))
	if err != nil {
		return err
	}
	r.Set(fiber.HeaderETag, userTag(&u))
	return r.answer(http.StatusOK, u)
}

func (s *Server) createUser(r *request) error {
	var n auth.NewUser
	if err := r.body(&n); err != nil {
		return err
	}
	u, err := s.o.Directory.CreateUser(r.UserContext(), r.actor, n)
	if err != nil {
		return err
	}
	r.Set(fiber.HeaderLocation, "/api/v1/users/"+u.Name)
	r.Set(fiber.HeaderETag, userTag(&u))
	return r.answer(http.StatusCreated, u)
}

func (s *Server) updateUser(r *request) error {
	var c auth.UserChange
	if err := r.body(&c); err != nil {
		return err
	}
	version, err := r.version()
	if err != nil {
		return err
	}
	u, err := s.o.Directory.UpdateUser(r.UserContext(), r.actor, r.Params("id"), version, c)
	if err != nil {
		return err
	}
	r.Set(fiber.HeaderETag, userTag(&u))
	return r.answer(http.StatusOK, u)
}

func (s *Server) deleteUser(r *request) error {
	version, err := r.version()
	if err != nil {
		return err
	}
	if err := s.o.Directory.DeleteUser(r.UserContext(), r.actor, r.Params("id"), version); err != nil {
		return err
	}
	return r.SendStatus(http.StatusNoContent)
}

// RoleBody is what can be written of a role.
type RoleBody struct {
	Name        string           `json:"name,omitempty"`
	Permissions auth.Permissions `json:"permissions"`
}

// RolePage lists the roles, and all permissions that there are.
type RolePage struct {
	Items       []auth.Role      `json:"items"`
	Permissions auth.Permissions `json:"permissions"`
}

func roleRoutes() []Route {
	return []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/roles", Name: "listRoles", Access: signedIn(), Status: 200,
			Doc: "List the roles and all permissions.", Answer: RolePage{}, handle: (*Server).listRoles,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/roles", Name: "createRole", Access: fabric(auth.ManageUsers), Status: 201, Create: true,
			Doc: "Make a role.", Body: RoleBody{}, Answer: auth.Role{}, handle: (*Server).createRole,
		},
		{
			Method: http.MethodPut, Path: "/api/v1/roles/:id", Name: "updateRole", Access: fabric(auth.ManageUsers), Status: 200,
			Doc: "Change a role's permissions.", Body: RoleBody{}, Answer: auth.Role{}, handle: (*Server).updateRole,
		},
		{
			Method: http.MethodDelete, Path: "/api/v1/roles/:id", Name: "deleteRole", Access: fabric(auth.ManageUsers), Status: 204,
			Doc: "Remove a role that nobody has.", handle: (*Server).deleteRole,
		},
	}
}

func (s *Server) listRoles(r *request) error {
	return r.answer(http.StatusOK, RolePage{Items: s.o.Directory.Roles(), Permissions: auth.All})
}

func (s *Server) createRole(r *request) error {
	var b RoleBody
	if err := r.body(&b); err != nil {
		return err
	}
	role, err := s.o.Directory.PutRole(r.UserContext(), r.actor, auth.Role{Name: b.Name, Permissions: b.Permissions}, true)
	if err != nil {
		return err
	}
	r.Set(fiber.HeaderLocation, "/api/v1/roles/"+role.Name)
	return r.answer(http.StatusCreated, role)
}

func (s *Server) updateRole(r *request) error {
	var b RoleBody
	if err := r.body(&b); err != nil {
		return err
	}
	id := r.Params("id")
	if b.Name != "" && b.Name != id {
		return invalid("name", "cannot be changed")
	}
	role, err := s.o.Directory.PutRole(r.UserContext(), r.actor, auth.Role{Name: id, Permissions: b.Permissions}, false)
	if err != nil {
		return err
	}
	return r.answer(http.StatusOK, role)
}

func (s *Server) deleteRole(r *request) error {
	if err := s.o.Directory.DeleteRole(r.UserContext(), r.actor, r.Params("id")); err != nil {
		return err
	}
	return r.SendStatus(http.StatusNoContent)
}

// TokenBody asks for an API token. Without permissions it may do what its user
// may; ExpiresAt is at most a year away, and 90 days by default.
type TokenBody struct {
	Name        string            `json:"name"`
	Permissions *auth.Permissions `json:"permissions,omitempty"`
	ExpiresAt   time.Time         `json:"expires_at,omitzero"`
}

// NewToken is an API token with its secret, which is shown once.
type NewToken struct {
	auth.Token
	Secret string `json:"secret"`
}

func tokenRoutes() []Route {
	return []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/tokens", Name: "listTokens", Access: signedIn(), Status: 200,
			Doc: "List one's own API tokens; all=true lists everybody's for who manages users.", Answer: Page[auth.Token]{},
			Query: []Param{{"all", "boolean", "everybody's"}}, handle: (*Server).listTokens,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/tokens", Name: "createToken", Access: signedIn(), Status: 201,
			Doc: "Make an API token of one's own. Its secret is shown once.", Body: TokenBody{}, Answer: NewToken{}, handle: (*Server).createToken,
		},
		{
			Method: http.MethodDelete, Path: "/api/v1/tokens/:id", Name: "deleteToken", Access: signedIn(), Status: 204,
			Doc: "Revoke an API token at once.", handle: (*Server).deleteToken,
		},
	}
}

func (s *Server) listTokens(r *request) error {
	all, err := r.flag("all")
	if err != nil {
		return err
	}
	user := r.actor.User
	if all {
		if err := fabric(auth.ManageUsers).admits(&r.actor); err != nil {
			return err
		}
		user = ""
	}
	list := s.o.Directory.Tokens(user)
	n := len(list)
	return r.answer(http.StatusOK, Page[auth.Token]{Items: list, Total: &n})
}

func (s *Server) createToken(r *request) error {
	var b TokenBody
	if err := r.body(&b); err != nil {
		return err
	}
	p := r.actor.Permissions
	if b.Permissions != nil {
		p = *b.Permissions
	}
	if b.ExpiresAt.IsZero() {
		b.ExpiresAt = r.now.Add(90 * 24 * time.Hour)
	}
	t, secret, err := s.o.Directory.CreateToken(r.UserContext(), r.actor, b.Name, p, b.ExpiresAt)
	if err != nil {
		return err
	}
	return r.answer(http.StatusCreated, NewToken{Token: t, Secret: secret})
}

func (s *Server) deleteToken(r *request) error {
	if err := s.o.Directory.DeleteToken(r.UserContext(), r.actor, r.Params("id")); err != nil {
		return err
	}
	return r.SendStatus(http.StatusNoContent)
}
