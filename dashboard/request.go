package dashboard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	strict "sigs.k8s.io/json"

	"patronus/dashboard/auth"
	"patronus/netstack/policy/manifest"
)

// Bounds of what a request may bring.
const (
	maxBody   = 1 << 20
	maxHeader = 16 << 10
	maxDepth  = 64
)

// request is one request on its way through a handler. It is valid until the
// handler returns; fiber is set up so that its strings outlive that.
type request struct {
	*fiber.Ctx
	actor auth.Actor
	route *Route
	now   time.Time
	// at is the past that is asked about, zero for the present.
	at time.Time
}

// client is where the request comes from.
func client(c *fiber.Ctx) auth.Client {
	agent := c.Get(fiber.HeaderUserAgent)
	if len(agent) > 200 {
		agent = agent[:200]
	}
	return auth.Client{Addr: c.IP(), UserAgent: plain(agent)}
}

// plain replaces control characters, which would forge lines of a log or
// colours of a terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// body decodes the request's JSON, or YAML if it says so, into v: unknown,
// repeated and misspelt fields are refused.
func (r *request) body(v any) error {
	text := r.Body()
	kind, _, err := mime.ParseMediaType(r.Get(fiber.HeaderContentType))
	switch {
	case err != nil && r.Get(fiber.HeaderContentType) != "":
		return problem(http.StatusUnsupportedMediaType, "media-type", "the Content-Type is unreadable")
	case isYAML(kind):
		docs, err := manifest.Parse(text, "body", maxBody)
		if err != nil {
			return err
		}
		if len(docs) != 1 {
			return problem(http.StatusBadRequest, "body", fmt.Sprintf("the body has %d documents instead of one", len(docs)))
		}
		text = docs[0].Root().JSON()
	case kind != fiber.MIMEApplicationJSON:
		return problem(http.StatusUnsupportedMediaType, "media-type", "the body must be application/json")
	}
	return decode(text, v)
}

func isYAML(kind string) bool {
	return kind == "application/yaml" || kind == "application/x-yaml" || kind == "text/yaml"
}

// decode is strict JSON.
func decode(text []byte, v any) error {
	if len(bytes.TrimSpace(text)) == 0 {
		return problem(http.StatusBadRequest, "body", "the body is missing")
	}
	if depth(text) > maxDepth {
		return problem(http.StatusBadRequest, "body", fmt.Sprintf("the body nests deeper than %d levels", maxDepth))
	}
	wrong, err := strict.UnmarshalStrict(text, v)
	if err != nil {
		return undecodable(text, err)
	}
	if len(wrong) > 0 {
		p := problem(http.StatusBadRequest, "body", "the body has fields that do not belong there")
		for _, w := range wrong {
			name, why := fieldOf(w.Error())
			p.Errors = append(p.Errors, FieldProblem{Field: name, Detail: why})
		}
		return p
	}
	return nil
}

var quotedField = regexp.MustCompile(`^(unknown|duplicate) field "(.*)"$`)

func fieldOf(text string) (name, why string) {
	if m := quotedField.FindStringSubmatch(text); m != nil {
		return m[2], map[string]string{"unknown": "is no field of this request", "duplicate": "is given twice"}[m[1]]
	}
	return "", text
}

// undecodable says where JSON that does not fit goes wrong.
func undecodable(text []byte, err error) error {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &typ) && typ.Field == "":
		return problem(http.StatusBadRequest, "body", "the body is of the kind "+typ.Value+", which does not fit")
	case errors.As(err, &typ):
		return invalid(typ.Field, "is of the kind "+typ.Value+", which does not fit")
	case errors.As(err, &syntax):
		line := 1 + bytes.Count(text[:min(int(syntax.Offset), len(text))], []byte("\n"))
		p := problem(http.StatusBadRequest, "body", "the body is not JSON: "+syntax.Error())
		p.Errors = []FieldProblem{{Field: "", Detail: syntax.Error(), Line: line}}
		return p
	}
	var value *auth.ValueError
	if errors.As(err, &value) {
		return err
	}
	return problem(http.StatusBadRequest, "body", "the body does not fit: "+plain(err.Error()))
}

// depth is how deep a JSON text nests at most; strings are skipped.
func depth(text []byte) int {
	deep, most := 0, 0
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			deep++
			most = max(most, deep)
		case c == '}' || c == ']':
			deep--
		}
	}
	return most
}

// number reads a query parameter, def if it is absent.
func (r *request) number(name string, def, least, most int) (int, error) {
	text := r.Query(name)
	if text == "" {
		return def, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, invalid(name, fmt.Sprintf("is not a number from %d to %d", least, most))
	}
	return n, nil
}

// time reads a query parameter in RFC 3339, the zero time if it is absent.
func (r *request) time(name string) (time.Time, error) {
	text := r.Query(name)
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, invalid(name, "is not a time as in 2026-11-25T14:32:15Z")
	}
	return t.UTC(), nil
}

// span reads from, to and duration: the last hour if none is given.
func (r *request) span() (from, to time.Time, err error) {
	if from, err = r.time("from"); err != nil {
		return
	}
	if to, err = r.time("to"); err != nil {
		return
	}
	if to.IsZero() {
		to = r.now
		if !r.at.IsZero() {
			to = r.at
		}
	}
	length := time.Hour
	if text := r.Query("duration"); text != "" {
		if length, err = parseSpan(text); err != nil {
			return from, to, invalid("duration", "is not a duration such as 15m, 1h or 7d")
		}
	}
	if from.IsZero() {
		from = to.Add(-length)
	}
	if !from.Before(to) {
		return from, to, invalid("from", "is not before to")
	}
	return from, to, nil
}

// parseSpan reads a duration of at most a year; days are allowed.
func parseSpan(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		if n > 366 {
			return 0, auth.ErrInvalid
		}
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d <= 0 || d > 366*24*time.Hour {
		return 0, auth.ErrInvalid
	}
	return d, nil
}

// flag reads a boolean query parameter; "?dry_run" alone means true.
func (r *request) flag(name string) (bool, error) {
	if !r.Context().QueryArgs().Has(name) {
		return false, nil
	}
	switch r.Query(name) {
	case "", "1", "true":
		return true, nil
	case "0", "false":
		return false, nil
	}
	return false, invalid(name, "is neither true nor false")
}

// answer sends v as JSON.
func (r *request) answer(status int, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	return r.text(status, text)
}

// text sends what is JSON already; borrowed: it must not change later.
func (r *request) text(status int, text []byte) error {
	r.Status(status)
	r.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	r.Context().Response.SetBodyRaw(text)
	return nil
}

// match checks If-Match (RFC 9110, 13.1.1) against the tag of what is there.
func (r *request) match(tag string) error {
	want := r.Get(fiber.HeaderIfMatch)
	if want == "" || want == "*" {
		return nil
	}
	for _, t := range strings.Split(want, ",") {
		if strings.TrimSpace(t) == tag {
			return nil
		}
	}
	return problem(http.StatusPreconditionFailed, "changed", "it has changed since it was read: read it again")
}
