package configs

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sync"
)

// New takes a configuration built in Go through the same door as a file: it
// returns a copy with the defaults filled in, or every problem as [Problems].
func New(c Config) (*Config, error) {
	out := clone(reflect.ValueOf(c)).Interface().(Config)
	out.withDefaults()
	if err := out.Validate(); err != nil {
		return nil, err
	}
	return &out, nil
}

// Canonical is the JSON that a revision carries. Equal configurations have
// equal bytes: the order is that of the fields, maps are sorted by key, and
// what is empty is left out. It fails only on a configuration that was not
// checked.
func (c *Config) Canonical() ([]byte, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	return text, nil
}

// Decode reads the JSON of [Config.Canonical] and checks it again. Unknown
// fields are refused: a configuration that this version cannot honour in full
// is not applied in part. The text need not be canonical, so that bodies
// written by an older version stay readable.
func Decode(text []byte) (*Config, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var c Config
	if err := dec.Decode(&c); err != nil {
		return nil, fmt.Errorf("decode configuration: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("decode configuration: text after its end")
	}
	return New(c)
}

var textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()

// clone copies v deeply and turns empty slices and maps into nil ones, which
// is what they are after a trip through JSON.
func clone(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	copyInto(out, v)
	return out
}

// copyInto sets out, a settable zero value, to a deep copy of v.
func copyInto(out, v reflect.Value) {
	t := v.Type()
	switch {
	case plain(t):
		out.Set(v)
	case t.Kind() == reflect.Struct:
		for i := range v.NumField() {
			copyInto(out.Field(i), v.Field(i))
		}
	case t.Kind() == reflect.Slice && v.Len() > 0:
		out.Set(reflect.MakeSlice(t, v.Len(), v.Len()))
		if plain(t.Elem()) {
			reflect.Copy(out, v)
			return
		}
		for i := range v.Len() {
			copyInto(out.Index(i), v.Index(i))
		}
	case t.Kind() == reflect.Map && v.Len() > 0:
		out.Set(reflect.MakeMapWithSize(t, v.Len()))
		for k, e := range v.Seq2() {
			out.SetMapIndex(k, clone(e))
		}
	case t.Kind() != reflect.Slice && t.Kind() != reflect.Map:
		out.Set(v)
	}
}

var plainTypes sync.Map // reflect.Type -> bool

// plain reports whether values of a type share nothing when they are copied: a
// leaf (netip values, keys, durations, numbers, text), or a struct of such. A
// network of 1,000 sites is copied for each of them.
func plain(t reflect.Type) bool {
	if known, ok := plainTypes.Load(t); ok {
		return known.(bool)
	}
	is := t.Implements(textMarshaler)
	switch t.Kind() {
	case reflect.Struct:
		is = is || allPlain(t)
	case reflect.Slice, reflect.Map:
	default:
		is = true
	}
	plainTypes.Store(t, is)
	return is
}

func allPlain(t reflect.Type) bool {
	for i := range t.NumField() {
		if !plain(t.Field(i).Type) {
			return false
		}
	}
	return true
}
