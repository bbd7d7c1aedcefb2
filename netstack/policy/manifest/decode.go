package manifest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Decode sets the value that into points to from the node, as encoding/json
// would from the same document, but strictly: field names are case-sensitive,
// and unknown fields and wrong types are problems, each with its position. at
// is the node's own field path, "" for a whole object.
func (n Node) Decode(into any, at string, problems *Problems) {
	d := decoder{problems: problems, fields: map[reflect.Type]map[string]field{}}
	d.value(n, reflect.ValueOf(into).Elem(), &place{text: at})
}

// place is a field path that costs nothing until it is printed.
type place struct {
	parent *place
	text   string // a key, if index is -1 and parent is not nil
	index  int
}

func (p *place) key(k string) place { return place{parent: p, text: k, index: -1} }
func (p *place) nth(i int) place    { return place{parent: p, index: i} }

func (p *place) String() string {
	switch {
	case p.parent == nil:
		return p.text
	case p.index >= 0:
		return p.parent.String() + "[" + strconv.Itoa(p.index) + "]"
	}
	if s := p.parent.String(); s != "" {
		return s + "." + p.text
	}
	return p.text
}

type decoder struct {
	problems *Problems
	fields   map[reflect.Type]map[string]field
}

type field struct{ index []int }

func (d *decoder) problem(n Node, at *place, format string, args ...any) {
	if !d.problems.Full() {
		d.problems.Add(n.Problemf(at.String(), fmt.Sprintf(format, args...)))
		return
	}
	d.problems.More = true
}

func (d *decoder) value(n Node, v reflect.Value, at *place) {
	if d.problems.Full() {
		return
	}
	if n.Null() { // as in JSON: nothing is set
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if u, ok := v.Addr().Interface().(json.Unmarshaler); ok {
		if err := u.UnmarshalJSON(n.appendJSON(nil)); err != nil {
			d.problem(n, at, "not a valid %s", describe(v.Type()))
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, at)
	case reflect.Map:
		d.mapping(n, v, at)
	case reflect.Slice:
		d.sequence(n, v, at)
	default:
		d.scalar(n, v, at)
	}
}

func describe(t reflect.Type) string {
	switch t.Name() {
	case "IntOrString":
		return "value: expected a number or a string"
	case "Time", "MicroTime":
		return "time (RFC 3339)"
	}
	return "value"
}

func (d *decoder) structure(n Node, v reflect.Value, at *place) {
	if n.Kind() != Mapping {
		d.problem(n, at, "expected a mapping, found %s", n.found())
		return
	}
	fields := d.of(v.Type())
	for k, e := range n.Pairs {
		key, _ := k.keyText()
		here := at.key(key)
		f, ok := fields[key]
		if !ok {
			d.problem(k, at, "unknown field %q", here.String())
			continue
		}
		d.value(e, v.FieldByIndex(f.index), &here)
	}
}

// of lists the fields of a struct by their JSON names.
func (d *decoder) of(t reflect.Type) map[string]field {
	if m, ok := d.fields[t]; ok {
		return m
	}
	m := map[string]field{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case name == "" && f.Anonymous:
			for k, inner := range d.of(f.Type) {
				m[k] = field{append([]int{i}, inner.index...)}
			}
		case name == "":
			m[f.Name] = field{[]int{i}}
		default:
			m[name] = field{[]int{i}}
		}
	}
	d.fields[t] = m
	return m
}

func (d *decoder) mapping(n Node, v reflect.Value, at *place) {
	if n.Kind() != Mapping {
		d.problem(n, at, "expected a mapping, found %s", n.found())
		return
	}
	if labels, ok := v.Addr().Interface().(*map[string]string); ok { // the usual case, without reflection
		*labels = make(map[string]string, n.Len())
		for k, e := range n.Pairs {
			key, _ := k.keyText()
			value := ""
			if e.Kind() == Scalar && e.Type() == String {
				value = e.Text()
			} else if !e.Null() {
				here := at.key(key)
				d.value(e, reflect.ValueOf(&value).Elem(), &here)
			}
			(*labels)[key] = value
		}
		return
	}
	t := v.Type()
	m := reflect.MakeMapWithSize(t, n.Len())
	for k, e := range n.Pairs {
		key, _ := k.keyText()
		here := at.key(key)
		value := reflect.New(t.Elem()).Elem()
		d.value(e, value, &here)
		m.SetMapIndex(reflect.ValueOf(key).Convert(t.Key()), value)
	}
	v.Set(m)
}

func (d *decoder) sequence(n Node, v reflect.Value, at *place) {
	if n.Kind() != Sequence {
		d.problem(n, at, "expected a sequence, found %s", n.found())
		return
	}
	s := reflect.MakeSlice(v.Type(), n.Len(), n.Len())
	i := 0
	for e := range n.Entries {
		here := at.nth(i)
		d.value(e, s.Index(i), &here)
		i++
	}
	v.Set(s)
}

func (d *decoder) scalar(n Node, v reflect.Value, at *place) {
	found := n.found()
	typ := String
	if n.Kind() == Scalar {
		typ = n.Type()
	}
	switch {
	case n.Kind() != Scalar:
	case v.Kind() == reflect.String && typ == String:
		v.SetString(n.Text())
		return
	case v.Kind() == reflect.Bool && typ == Bool:
		v.SetBool(n.truth())
		return
	case v.CanInt() && (typ == Int || typ == Float):
		if i, ok := n.Int(); ok && !v.OverflowInt(i) {
			v.SetInt(i)
			return
		}
		found = n.Text()
	case v.CanUint() && (typ == Int || typ == Float):
		if i, ok := n.Int(); ok && i >= 0 && !v.OverflowUint(uint64(i)) {
			v.SetUint(uint64(i))
			return
		}
		found = n.Text()
	}
	want := "a string"
	switch {
	case v.Kind() == reflect.Bool:
		want = "a boolean"
	case v.CanInt() || v.CanUint():
		want = "a whole number of " + strconv.Itoa(v.Type().Bits()) + " bits"
	case typ != String:
		found += " (quote it)"
	}
	d.problem(n, at, "expected %s, found %s", want, found)
}

func (n Node) found() string {
	switch n.Kind() {
	case Mapping:
		return "a mapping"
	case Sequence:
		return "a sequence"
	}
	return n.Type().String()
}

// JSON is the node as JSON, as the API server would convert it.
func (n Node) JSON() []byte { return n.appendJSON(nil) }

func (n Node) appendJSON(b []byte) []byte {
	switch n.Kind() {
	case Mapping:
		b = append(b, '{')
		for k, v := range n.Pairs {
			if b[len(b)-1] != '{' {
				b = append(b, ',')
			}
			key, _ := k.keyText()
			b = appendString(b, key)
			b = append(b, ':')
			b = v.appendJSON(b)
		}
		return append(b, '}')
	case Sequence:
		b = append(b, '[')
		for e := range n.Entries {
			if b[len(b)-1] != '[' {
				b = append(b, ',')
			}
			b = e.appendJSON(b)
		}
		return append(b, ']')
	}
	switch n.Type() {
	case Null:
		return append(b, "null"...)
	case Bool:
		return strconv.AppendBool(b, n.truth())
	case Int:
		if v, ok := n.Int(); ok {
			return strconv.AppendInt(b, v, 10)
		}
		v, _ := strconv.ParseUint(strings.ReplaceAll(n.Text(), "_", ""), 0, 64)
		return strconv.AppendUint(b, v, 10)
	case Float:
		f, _ := strconv.ParseFloat(strings.ReplaceAll(n.Text(), "_", ""), 64)
		if j, err := json.Marshal(f); err == nil {
			return append(b, j...)
		}
	}
	return appendString(b, n.Text())
}

func appendString(b []byte, s string) []byte {
	j, err := json.Marshal(s)
	if err != nil { // strings always marshal
		return append(b, `""`...)
	}
	return append(b, j...)
}
