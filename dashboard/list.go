package dashboard

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/gofiber/fiber/v2"
	"github.com/klauspost/compress/gzip"
)

// Pages of lists that are in memory.
const (
	defaultPage = 1000
	maxPage     = 5000
	// gzipFrom is the size of an answer that is worth compressing, bytes.
	gzipFrom = 2048
)

// Page is a page of a list. Next is the cursor of the next page, absent at the
// end; Total counts what fits the filter and the asker's scope.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
	Total *int   `json:"total,omitempty"`
}

// collection is a list of a view: made and encoded when it is first asked for,
// once for everybody.
type collection[T any] struct {
	make func() []T
	id   func(*T) string

	list  func() []T
	texts func() [][]byte // of list, JSON
	whole func() encodedList
	byID  func() map[string]int
}

type encodedList struct {
	plain, packed []byte
	tag           string
	err           error
}

func newCollection[T any](produce func() []T, id func(*T) string) *collection[T] {
	c := &collection[T]{make: produce, id: id}
	c.list = sync.OnceValue(func() []T {
		list := produce()
		slices.SortFunc(list, func(a, b T) int { return cmp.Compare(id(&a), id(&b)) })
		return list
	})
	c.byID = sync.OnceValue(func() map[string]int {
		list := c.list()
		m := make(map[string]int, len(list))
		for i := range list {
			m[id(&list[i])] = i
		}
		return m
	})
	c.texts = sync.OnceValue(func() [][]byte {
		list := c.list()
		texts := make([][]byte, len(list))
		for i := range list {
			texts[i] = mustEncode(&list[i])
		}
		return texts
	})
	c.whole = sync.OnceValue(func() encodedList {
		texts := c.texts()
		e := encodedList{plain: joinPage(texts, "", len(texts))}
		sum := sha256.Sum256(e.plain)
		e.tag = tagOf(sum[:])
		e.packed, e.err = packed(e.plain)
		return e
	})
	return c
}

// find is an item by its id.
func (c *collection[T]) find(id string) (*T, bool) {
	i, ok := c.byID()[id]
	if !ok {
		return nil, false
	}
	return &c.list()[i], true
}

// mustEncode is for the shapes of this package, which always encode; what does
// not is a bug that the first test finds.
func mustEncode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return text
}

func tagOf(sum []byte) string { return `"` + hex.EncodeToString(sum[:12]) + `"` }

// tag is the entity tag of what of a resource can be written.
func tag(v any) string {
	sum := sha256.Sum256(mustEncode(v))
	return tagOf(sum[:])
}

func packed(plain []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil { // writes the end
		return nil, err
	}
	return b.Bytes(), nil
}

// joinPage writes a Page of items that are encoded already.
func joinPage(texts [][]byte, next string, total int) []byte {
	size := 64 + len(next)
	for _, t := range texts {
		size += len(t) + 1
	}
	b := append(make([]byte, 0, size), `{"items":[`...)
	for i, t := range texts {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, t...)
	}
	b = append(b, ']')
	if next != "" {
		b = append(b, `,"next":`...)
		b = strconv.AppendQuote(b, next) // base64 needs no escape
	}
	b = append(b, `,"total":`...)
	return append(strconv.AppendInt(b, int64(total), 10), '}')
}

// value is a field of an item, to filter and sort by.
type value struct {
	text   string
	number float64
	is     bool // a number
}

func text(s string) value    { return value{text: s} }
func number(n float64) value { return value{number: n, is: true} }

func (v value) compare(w value) int {
	return cmp.Or(cmp.Compare(v.number, w.number), cmp.Compare(v.text, w.text))
}

func (v value) String() string {
	if v.is {
		return strconv.FormatFloat(v.number, 'g', -1, 64)
	}
	return v.text
}

// fields are what a list can be filtered and sorted by.
type fields[T any] map[string]func(*T) value

// listing is how one kind of item is listed.
type listing[T any] struct {
	fields fields[T]
	labels func(*T) map[string]string // for label.NAME=VALUE, nil for none
	sees   func(*T) bool              // nil sees all
}

// listed answers with a page of a collection. Without a query it is sent as it
// was encoded for everybody.
func listed[T any](r *request, c *collection[T], l listing[T]) error {
	args := r.Context().QueryArgs().Len()
	if !r.at.IsZero() {
		args--
	}
	if args == 0 && l.sees == nil && len(c.list()) <= defaultPage {
		return r.whole(c.whole())
	}
	limit, err := r.number("limit", defaultPage, 1, maxPage)
	if err != nil {
		return err
	}
	keep, err := filterOf(r, l)
	if err != nil {
		return err
	}
	order, field, err := orderOf(r, l, c.id)
	if err != nil {
		return err
	}
	items, texts := c.list(), c.texts()
	var at []int
	for i := range items {
		if (l.sees == nil || l.sees(&items[i])) && keep(&items[i]) {
			at = append(at, i)
		}
	}
	if field != nil {
		slices.SortStableFunc(at, func(i, j int) int { return order(&items[i], &items[j]) })
	}
	total := len(at)
	if cursor := r.Query("cursor"); cursor != "" {
		if at, err = after(c, at, cursor, order, field); err != nil {
			return err
		}
	}
	next := ""
	if len(at) > limit {
		at = at[:limit]
		last := &items[at[limit-1]]
		mark := c.id(last)
		if field != nil {
			mark += "\n" + field(last).String()
		}
		next = base64.RawURLEncoding.EncodeToString([]byte(mark))
	}
	page := make([][]byte, len(at))
	for i, j := range at {
		page[i] = texts[j]
	}
	return r.large(joinPage(page, next, total))
}

// large sends JSON, compressed if that is worth it and welcome.
func (r *request) large(plain []byte) error {
	r.Vary(fiber.HeaderAcceptEncoding)
	if len(plain) < gzipFrom || !strings.Contains(r.Get(fiber.HeaderAcceptEncoding), "gzip") {
		return r.text(http.StatusOK, plain)
	}
	zip, err := packed(plain)
	if err != nil {
		return fmt.Errorf("compress answer: %w", err)
	}
	r.Set(fiber.HeaderContentEncoding, "gzip")
	return r.text(http.StatusOK, zip)
}

// whole sends a list that was encoded before.
func (r *request) whole(e encodedList) error {
	r.Set(fiber.HeaderETag, e.tag)
	r.Set(fiber.HeaderCacheControl, "private, no-cache")
	r.Vary(fiber.HeaderAcceptEncoding)
	if r.Get(fiber.HeaderIfNoneMatch) == e.tag {
		return r.SendStatus(http.StatusNotModified)
	}
	if e.err == nil && len(e.plain) >= gzipFrom && strings.Contains(r.Get(fiber.HeaderAcceptEncoding), "gzip") {
		r.Set(fiber.HeaderContentEncoding, "gzip")
		return r.text(http.StatusOK, e.packed)
	}
	return r.text(http.StatusOK, e.plain)
}

// pageArgs are the query parameters that every list has.
func pageArgs(name string) bool {
	return name == "limit" || name == "cursor" || name == "sort" || name == "at"
}

// filterOf reads the filter: field=value[,value], label.NAME=VALUE, q=TEXT.
func filterOf[T any](r *request, l listing[T]) (func(*T) bool, error) {
	var tests []func(*T) bool
	var bad error
	for k, v := range r.Context().QueryArgs().All() {
		name, want := string(k), string(v)
		field := l.fields[name]
		label, isLabel := strings.CutPrefix(name, "label.")
		switch {
		case pageArgs(name):
		case isLabel && l.labels != nil:
			tests = append(tests, func(x *T) bool { have, ok := l.labels(x)[label]; return ok && have == want })
		case name == "q":
			want = strings.ToLower(want)
			tests = append(tests, func(x *T) bool {
				for _, f := range l.fields {
					if strings.Contains(strings.ToLower(f(x).String()), want) {
						return true
					}
				}
				return false
			})
		case field != nil:
			any := strings.Split(want, ",")
			tests = append(tests, func(x *T) bool { return slices.Contains(any, field(x).String()) })
		default:
			bad = invalid(name, "is no parameter of this list")
		}
	}
	return func(x *T) bool {
		for _, t := range tests {
			if !t(x) {
				return false
			}
		}
		return true
	}, bad
}

// orderOf reads sort=field or sort=-field. Items that are equal by it go by id.
func orderOf[T any](r *request, l listing[T], id func(*T) string) (order func(a, b *T) int, field func(*T) value, err error) {
	name, down := strings.CutPrefix(r.Query("sort"), "-")
	if name == "" {
		return func(a, b *T) int { return cmp.Compare(id(a), id(b)) }, nil, nil
	}
	field = l.fields[name]
	if field == nil {
		return nil, nil, invalid("sort", "the list cannot be sorted by "+strconv.Quote(plain(name)))
	}
	return func(a, b *T) int {
		by := field(a).compare(field(b))
		if down {
			by = -by
		}
		return cmp.Or(by, cmp.Compare(id(a), id(b)))
	}, field, nil
}

// after leaves what comes after a cursor: also when the item that it names has
// gone, as long as the order is the list's own.
func after[T any](c *collection[T], at []int, cursor string, order func(a, b *T) int, field func(*T) value) ([]int, error) {
	mark, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return nil, invalid("cursor", "is not one that this list gave")
	}
	id, _, _ := strings.Cut(string(mark), "\n")
	items := c.list()
	if last, ok := c.find(id); ok {
		i, _ := slices.BinarySearchFunc(at, last, func(i int, last *T) int { return order(&items[i], last) })
		for i < len(at) && order(&items[at[i]], last) <= 0 {
			i++
		}
		return at[i:], nil
	}
	if field != nil {
		return nil, problem(http.StatusGone, "cursor", "the list has changed: start again")
	}
	i, _ := slices.BinarySearchFunc(at, id, func(i int, id string) int { return cmp.Compare(c.id(&items[i]), id) })
	return at[i:], nil
}
