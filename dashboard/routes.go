package dashboard

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"patronus/dashboard/auth"
)

// Access is what a route asks of who calls it. The zero Access is none: a route
// that has it does not start.
type Access struct {
	kind       accessKind
	permission auth.Permission
	everywhere bool
}

type accessKind uint8

const (
	accessNone accessKind = iota
	accessPublic
	accessSignedIn
	accessPermission
)

// public is for whoever comes, signedIn for everybody who is known.
func public() Access   { return Access{kind: accessPublic} }
func signedIn() Access { return Access{kind: accessSignedIn} }

// needs is a permission at the sites that are touched; the handler leaves out,
// or refuses, what is outside of the actor's scope.
func needs(p auth.Permission) Access { return Access{kind: accessPermission, permission: p} }

// fabric is a permission of an actor whose scope is the whole fabric: what is
// touched belongs to no site.
func fabric(p auth.Permission) Access {
	return Access{kind: accessPermission, permission: p, everywhere: true}
}

// String is what the reference and the permission table show.
func (a Access) String() string {
	switch a.kind {
	case accessPublic:
		return "public"
	case accessSignedIn:
		return "signed in"
	case accessPermission:
		if a.everywhere {
			return a.permission.String() + ", whole fabric"
		}
		return a.permission.String()
	}
	return "none"
}

// admits reports whether an actor may call the route at all.
func (a Access) admits(actor *auth.Actor) error {
	switch {
	case a.kind == accessPublic:
		return nil
	case a.kind == accessNone || !actor.Known():
		return problem(http.StatusUnauthorized, "credentials", "sign in, or send a bearer token")
	case a.kind == accessPermission && !actor.May(a.permission):
		return problem(http.StatusForbidden, "forbidden", "this needs the permission "+a.permission.String())
	case a.everywhere && !actor.Everywhere():
		return problem(http.StatusForbidden, "forbidden", "this concerns the whole fabric, and your rights are limited to some sites")
	}
	return nil
}

// handler answers a request, or returns an error for [problemOf].
type handler func(*Server, *request) error

// Param is a query parameter of a route.
type Param struct {
	Name, Type, Doc string
}

// Route is one row of the table: the only way to a handler.
type Route struct {
	Method, Path string
	Access       Access
	Name         string // operation, in camel case
	Doc          string
	// Body and Answer are values of the types that travel, nil for none; they
	// describe the route and are not used to serve it.
	Body, Answer any
	Status       int
	Query        []Param
	// Past routes understand ?at=.
	Past bool
	// Create routes understand Idempotency-Key.
	Create bool
	// Unlimited routes are not counted by the rate limit.
	Unlimited bool
	handle    handler
}

// Routes are the rows of the table, in its order.
func Routes() []Route { return table() }

// table gathers the rows of all resources.
func table() []Route {
	var all []Route
	for _, rows := range [][]Route{
		healthRoutes(), authRoutes(), userRoutes(), roleRoutes(), tokenRoutes(),
		siteRoutes(), enrollmentRoutes(), pathRoutes(), flowRoutes(), policyRoutes(), routingRoutes(), endpointRoutes(),
		metricRoutes(), eventRoutes(), alertRoutes(), alertRuleRoutes(), alertChannelRoutes(), auditRoutes(), explainRoutes(), captureRoutes(), nodeRoutes(), revisionRoutes(), rolloutRoutes(), networkRoutes(),
		preferenceRoutes(), liveRoutes(), graphRoutes(), documentRoutes(),
	} {
		all = append(all, rows...)
	}
	return withRollouts(all)
}

// checkTable refuses a table with a hole in it.
func checkTable(all []Route) error {
	var bad []error
	seen := map[string]bool{}
	names := map[string]bool{}
	for _, r := range all {
		at := r.Method + " " + r.Path
		switch {
		case r.Access.kind == accessNone:
			bad = append(bad, fmt.Errorf("route %s: no permission", at))
		case r.handle == nil:
			bad = append(bad, fmt.Errorf("route %s: no handler", at))
		case seen[at]:
			bad = append(bad, fmt.Errorf("route %s: given twice", at))
		case r.Name == "" || names[r.Name]:
			bad = append(bad, fmt.Errorf("route %s: its name %q is empty or taken", at, r.Name))
		case r.Doc == "" || r.Status == 0:
			bad = append(bad, fmt.Errorf("route %s: no description or status", at))
		case !strings.HasPrefix(r.Path, "/"):
			bad = append(bad, fmt.Errorf("route %s: not a path", at))
		}
		seen[at], names[r.Name] = true, true
	}
	return errors.Join(bad...)
}
