package dashboard

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"patronus/dashboard/auth"
	"patronus/netstack/path"
)

func documentRoutes() []Route {
	return []Route{{
		Method: http.MethodGet, Path: "/api/v1/openapi.json", Name: "openapi", Access: public(), Status: 200,
		Doc: "This description of the API (OpenAPI 3.1).", Answer: json.RawMessage(nil),
		handle: func(s *Server, r *request) error { return r.text(http.StatusOK, s.spec) },
	}}
}

// Document is the OpenAPI description of the API, made of the table of routes.
func Document(version string) ([]byte, error) { return document(table(), version) }

// object is a JSON object of the description.
type object = map[string]any

// listQuery are the query parameters of a list in memory.
func listQuery[T any](f fields[T], labels bool) []Param {
	names := slices.Sorted(maps.Keys(f))
	q := []Param{
		{"limit", "integer", "1 to " + strconv.Itoa(maxPage) + "; default " + strconv.Itoa(defaultPage)},
		{"cursor", "string", "of the next page"},
		{"sort", "string", "one of " + strings.Join(names, ", ") + "; with - in front, the greatest first"},
		{"q", "string", "text in any of the fields"},
	}
	for _, n := range names {
		q = append(q, Param{n, "string", "only items with this value, or one of several separated by commas"})
	}
	if labels {
		q = append(q, Param{"label.NAME", "string", "only items with this label"})
	}
	return q
}

var pathParam = regexp.MustCompile(`:([a-z_]+)`)

// document describes a table.
func document(routes []Route, version string) ([]byte, error) {
	if version == "" {
		version = "0"
	}
	d := describer{schemas: object{}, names: map[reflect.Type]string{}}
	problems := object{"description": "What went wrong.", "content": object{"application/problem+json": object{"schema": d.schema(reflect.TypeFor[Problem](), false)}}}
	paths := object{}
	for i := range routes {
		r := &routes[i]
		at := pathParam.ReplaceAllString(r.Path, "{$1}")
		item, ok := paths[at].(object)
		if !ok {
			item = object{}
			paths[at] = item
		}
		item[strings.ToLower(r.Method)] = d.operation(r, problems)
	}
	text, err := json.Marshal(object{
		"openapi": "3.1.0",
		"info":    object{"title": "Patronus dashboard", "version": version, "license": object{"name": "see LICENSE", "url": "https://spdx.org/licenses/"}},
		"servers": []any{object{"url": "/"}},
		"paths":   paths,
		"components": object{
			"schemas": d.schemas,
			"securitySchemes": object{
				"bearer":  object{"type": "http", "scheme": "bearer", "description": "A JWT of /api/v1/auth/login, or an API token."},
				"session": object{"type": "apiKey", "in": "cookie", "name": cookieName},
			},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("describe the API: %w", err)
	}
	return text, nil
}

func (d *describer) operation(r *Route, problems object) object {
	op := object{"operationId": r.Name, "summary": r.Doc, "x-permission": r.Access.String(), "tags": []string{tagName(r.Path)}}
	if r.Access.kind == accessPublic {
		op["security"] = []any{}
	} else {
		op["security"] = []any{object{"bearer": []any{}}, object{"session": []any{}}}
	}
	params := []any{}
	for _, m := range pathParam.FindAllStringSubmatch(r.Path, -1) {
		params = append(params, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	query := slices.Clone(r.Query)
	if r.Past {
		query = append(query, Param{"at", "date-time", "the state at this time instead of now"})
	}
	seen := map[string]bool{}
	for _, q := range query {
		if seen[q.Name] {
			continue
		}
		seen[q.Name] = true
		schema := object{"type": q.Type}
		if q.Type == "date-time" {
			schema = object{"type": "string", "format": "date-time"}
		}
		params = append(params, object{"name": q.Name, "in": "query", "description": q.Doc, "schema": schema})
	}
	if r.Create {
		params = append(params, object{"name": "Idempotency-Key", "in": "header", "description": "A repeated request with the same key is not carried out again.", "schema": object{"type": "string", "maxLength": maxKey}})
	}
	if r.Method == http.MethodPut || r.Method == http.MethodDelete {
		params = append(params, object{"name": "If-Match", "in": "header", "description": "The ETag that was read; anything newer is not overwritten.", "schema": object{"type": "string"}})
	}
	if len(params) > 0 {
		op["parameters"] = params
	}
	if r.Body != nil {
		schema := d.schema(reflect.TypeOf(r.Body), true)
		op["requestBody"] = object{"content": object{"application/json": object{"schema": schema}, "application/yaml": object{"schema": schema}}}
	}
	answer := object{"description": http.StatusText(r.Status)}
	if r.Answer != nil {
		answer["content"] = object{"application/json": object{"schema": d.schema(reflect.TypeOf(r.Answer), false)}}
	}
	answers := object{strconv.Itoa(r.Status): answer, "default": problems}
	if r.Status == http.StatusAccepted && r.Answer != nil && reflect.TypeOf(r.Answer) == reflect.TypeFor[Accepted]() {
		answers["200"] = answer // a dry run, or nothing to change
	}
	op["responses"] = answers
	return op
}

// tagName groups operations by resource.
func tagName(route string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(route, "/api/v1/"), "/"), "/")
	return name
}

// describer makes schemas of Go types, by what encoding/json makes of them.
type describer struct {
	schemas object
	names   map[reflect.Type]string
}

// special are types whose JSON is not that of their structure.
func special(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case reflect.TypeFor[json.RawMessage]():
		return object{"type": []string{"object", "array", "string", "number", "boolean", "null"}}
	case reflect.TypeFor[path.Value]():
		return object{"type": []string{"number", "null"}}
	case reflect.TypeFor[path.Score]():
		return object{"type": []string{"integer", "null"}, "minimum": 0, "maximum": 100}
	case reflect.TypeFor[auth.Secret]():
		return object{"type": "string", "format": "password"}
	case reflect.TypeFor[auth.Permissions]():
		return object{"type": "array", "items": object{"type": "string", "enum": auth.All.Names()}}
	}
	switch {
	case t.Implements(reflect.TypeFor[json.Marshaler]()) && !t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return object{}
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()), reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextMarshaler]()) && t.Kind() != reflect.Struct:
		return object{"type": "string"}
	}
	return nil
}

// schema describes a type; of a body nothing is required, since what is left
// out has a default or is named by an error.
func (d *describer) schema(t reflect.Type, body bool) object {
	if s := special(t); s != nil {
		return s
	}
	switch t.Kind() {
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Pointer:
		return orNull(d.schema(t.Elem(), body))
	case reflect.Slice, reflect.Array:
		return object{"type": "array", "items": d.schema(t.Elem(), body)}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": d.schema(t.Elem(), body)}
	case reflect.Struct:
		return object{"$ref": "#/components/schemas/" + d.component(t, body)}
	}
	return object{}
}

func orNull(s object) object {
	if one, ok := s["type"].(string); ok && s["enum"] == nil {
		out := maps.Clone(s)
		out["type"] = []string{one, "null"}
		return out
	}
	return object{"anyOf": []any{s, object{"type": "null"}}}
}

var notName = regexp.MustCompile(`[^A-Za-z0-9]+`)

// component describes a structure once, under its name.
func (d *describer) component(t reflect.Type, body bool) string {
	key := t
	if body {
		key = reflect.PointerTo(t) // bodies have names of their own
	}
	if name, ok := d.names[key]; ok {
		return name
	}
	// Page[patronus/dashboard.Site] becomes PageSite.
	name := t.Name()
	if base, arg, ok := strings.Cut(name, "["); ok {
		name = base + arg[strings.LastIndexByte(arg, '.')+1:]
	}
	name = notName.ReplaceAllString(name, "")
	if body && !strings.HasSuffix(name, "Body") {
		name += "Body"
	}
	for base, n := name, 2; d.schemas[name] != nil; n++ {
		name = base + strconv.Itoa(n)
	}
	d.names[key] = name
	d.schemas[name] = object{} // taken, also while a cycle comes back here
	properties, required := object{}, []string{}
	d.properties(t, body, properties, &required)
	s := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 && !body {
		s["required"] = required
	}
	d.schemas[name] = s
	return name
}

func (d *describer) properties(t reflect.Type, body bool, into object, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported() && !f.Anonymous:
			continue
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			d.properties(f.Type, body, into, required)
			continue
		case name == "":
			name = f.Name
		}
		into[name] = d.schema(f.Type, body)
		if !strings.Contains(options, "omit") {
			*required = append(*required, name)
		}
	}
}
