package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"

	"patronus/appliance/ledger"
	"patronus/configs"
	"patronus/dashboard/alert"
	"patronus/dashboard/auth"
	"patronus/dashboard/control"
	"patronus/netstack/policy"
	"patronus/netstack/policy/manifest"
)

// Problem is what every error looks like on the wire (RFC 9457). Nothing in it
// is an internal error's text.
type Problem struct {
	Type      string         `json:"type"`
	Title     string         `json:"title"`
	Status    int            `json:"status"`
	Detail    string         `json:"detail,omitempty"`
	RequestID string         `json:"request_id,omitempty"`
	Errors    []FieldProblem `json:"errors,omitempty"`

	retryAfter int // seconds, 0 for none
}

// FieldProblem is one wrong field of a request; line and column are given for
// YAML texts.
type FieldProblem struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

func (p *Problem) Error() string { return p.Title + ": " + p.Detail }

// problem makes a Problem of a code, which names it for programs.
func problem(status int, code, detail string) *Problem {
	return &Problem{Type: "urn:patronus:problem:" + code, Title: http.StatusText(status), Status: status, Detail: detail}
}

// invalid says that one field of the request is wrong.
func invalid(field, why string) *Problem {
	p := problem(http.StatusUnprocessableEntity, "invalid", field+": "+why)
	p.Errors = []FieldProblem{{Field: field, Detail: why}}
	return p
}

func notFound(what, id string) *Problem {
	return problem(http.StatusNotFound, "not-found", fmt.Sprintf("there is no %s %.80q", what, id))
}

// What the world behind the interfaces of fleet.go may answer; these become
// 404, 503 and 501.
var (
	// ErrNotFound: there is no such thing (any more).
	ErrNotFound = errors.New("not found")
	// ErrUnreachable: the site that was to answer cannot be reached.
	ErrUnreachable = errors.New("site cannot be reached")
	// ErrUnavailable: this dashboard has nothing that could answer.
	ErrUnavailable = errors.New("not available here")
)

// statusOf is the table of errors that have a status of their own.
var statusOf = []struct {
	err    error
	status int
	code   string
}{
	{auth.ErrCredentials, 401, "credentials"},
	{auth.ErrForbidden, 403, "forbidden"},
	{auth.ErrSetup, 403, "setup"},
	{auth.ErrNotFound, 404, "not-found"},
	{auth.ErrExists, 409, "exists"},
	{auth.ErrConflict, 412, "changed"},
	{auth.ErrInvalid, 422, "invalid"},
	{auth.ErrBusy, 503, "busy"},
	{control.ErrNoRevision, 404, "not-found"},
	{control.ErrRollout, 409, "rollout"},
	{control.ErrNoRollout, 409, "rollout"},
	{control.ErrNoEnrollment, 404, "not-found"},
	{control.ErrEnrolled, 409, "exists"},
	{control.ErrToken, 403, "enrollment"},
	{policy.ErrNotPolicy, 422, "invalid"},
	{manifest.ErrSize, 413, "too-large"},
	{ledger.ErrFull, 507, "disk-full"},
	{ledger.ErrTooBig, 413, "too-large"},
	{ledger.ErrFailed, 503, "store"},
	{ErrNotFound, 404, "not-found"},
	{alert.ErrNotFound, 404, "not-found"},
	{alert.ErrMany, 409, "too-many"},
	{ErrUnreachable, 503, "unreachable"},
	{ErrUnavailable, 501, "unavailable"},
	{context.DeadlineExceeded, 504, "timeout"},
	{context.Canceled, 503, "stopping"},
}

// problemOf is the one place where errors become answers. An error that is not
// known here is internal: it is logged by the caller and not shown.
func problemOf(err error) (p *Problem, known bool) {
	if errors.As(err, &p) {
		return p, true
	}
	var value *auth.ValueError
	if errors.As(err, &value) {
		return invalid(value.Field, value.Why), true
	}
	var wait *auth.ThrottledError
	if errors.As(err, &wait) {
		p := problem(http.StatusTooManyRequests, "throttled", wait.Error())
		p.retryAfter = int(math.Ceil(wait.Wait.Seconds()))
		return p, true
	}
	if fields := configs.FieldErrors(err); fields != nil {
		p := problem(http.StatusUnprocessableEntity, "invalid", "the configuration would not be valid")
		for _, f := range fields {
			p.Errors = append(p.Errors, FieldProblem{Field: f.Path, Detail: strings.TrimSpace(f.Value + " " + f.Why), Line: f.Line, Column: f.Column})
		}
		return p, true
	}
	var text *manifest.Problems
	if errors.As(err, &text) {
		p := problem(http.StatusUnprocessableEntity, "invalid", "the text is not valid")
		for _, f := range text.List {
			p.Errors = append(p.Errors, FieldProblem{Field: f.Path, Detail: f.Why, Line: f.Line, Column: f.Column})
		}
		return p, true
	}
	for _, s := range statusOf {
		if errors.Is(err, s.err) {
			return problem(s.status, s.code, err.Error()), true
		}
	}
	var f *fiber.Error
	if errors.As(err, &f) {
		detail := ""
		if f.Code == http.StatusNotFound {
			detail = "there is nothing at this path"
		}
		return problem(f.Code, strings.ReplaceAll(strings.ToLower(http.StatusText(f.Code)), " ", "-"), detail), true
	}
	return problem(http.StatusInternalServerError, "internal", "the error is in the log under this request's id"), false
}

// fail answers with an error; it is fiber's error handler.
func (s *Server) fail(c *fiber.Ctx, err error) error {
	found, known := problemOf(err)
	p := *found
	p.RequestID, _ = c.Locals(localRequestID).(string)
	if !known {
		s.log.Error("request failed", "path", c.Route().Path, "why", p.RequestID, "err", err)
	}
	if p.Status == http.StatusUnauthorized {
		c.Set(fiber.HeaderWWWAuthenticate, `Bearer realm="patronus"`)
	}
	if p.retryAfter > 0 {
		c.Set(fiber.HeaderRetryAfter, strconv.Itoa(p.retryAfter))
	}
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	c.Status(p.Status)
	c.Set(fiber.HeaderContentType, "application/problem+json")
	c.Set(fiber.HeaderCacheControl, "no-store")
	return c.Send(text)
}
