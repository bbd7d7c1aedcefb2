package configs

import (
	"encoding"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// value reads n into v, which is settable, and reports what does not fit.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.AliasNode || isNull(n) {
		return // refused by checkTree; not given
	}
	if _, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		d.text(n, v, path)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	case reflect.Map:
		d.labels(n, v, path)
	default:
		d.scalar(n, v, path)
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.add(n, path, given(n), "%s", "is not a mapping of keys to values")
		return
	}
	var seen uint64 // by index of the field
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
			continue // refused by checkTree
		}
		field := fieldOf(v.Type(), key.Value)
		switch {
		case field < 0:
			d.add(key, join(path, key.Value), "", "unknown key%s", suggestion(key.Value, v.Type()))
		case seen>>field&1 == 0: // a second one is refused by checkTree
			d.value(value, v.Field(field), join(path, key.Value))
			seen |= 1 << field
		}
	}
}

// keyOf is the YAML key of a field, "" for one that files cannot set.
func keyOf(f reflect.StructField) string {
	key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	if key == "-" {
		return ""
	}
	return key
}

// fieldOf is the index of the field that has a key, -1 if there is none.
func fieldOf(t reflect.Type, key string) int {
	for i := range t.NumField() {
		if k := keyOf(t.Field(i)); k != "" && k == key {
			return i
		}
	}
	return -1
}

// suggestion names the known key that looks most like a wrong one.
func suggestion(key string, t reflect.Type) string {
	best, least := "", 3 // more than two slips is another word
	for i := range t.NumField() {
		if k := keyOf(t.Field(i)); k != "" {
			if n := distance(key, k, least); n < least {
				best, least = k, n
			}
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance is the Levenshtein distance of two keys, or limit if it is not
// less; keys of very different length are not compared.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return min(row[len(b)], limit)
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.add(n, path, given(n), "%s", "is not a list")
		return
	}
	if len(n.Content) > maxList {
		d.add(n, path, "", "has %d entries; the most is %d", len(n.Content), maxList)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		if isNull(item) {
			d.add(item, index(path, i), "", "an empty entry")
			continue
		}
		d.value(item, v.Index(i), index(path, i))
	}
}

func (d *decoder) labels(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.add(n, path, given(n), "%s", "is not a mapping of keys to values")
		return
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(n.Content)/2))
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || value.Kind == yaml.AliasNode {
			continue // refused by checkTree
		}
		item := reflect.New(v.Type().Elem()).Elem()
		if !isNull(value) {
			d.value(value, item, join(path, key.Value))
		}
		v.SetMapIndex(reflect.ValueOf(key.Value), item)
	}
}

// text reads a scalar of any kind by its UnmarshalText.
func (d *decoder) text(n *yaml.Node, v reflect.Value, path string) {
	what := wanted(v.Interface())
	if n.Kind != yaml.ScalarNode {
		d.add(n, path, given(n), "is not %s", what)
		return
	}
	text := n.Value
	if _, isPrefix := v.Interface().(netip.Prefix); isPrefix && !strings.Contains(text, "/") {
		// A bare address is the prefix of that host alone.
		if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
			v.Set(reflect.ValueOf(netip.PrefixFrom(a, a.BitLen())))
			return
		}
	}
	err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text))
	switch {
	case err != nil && what != "":
		d.add(n, path, show(text), "is not %s", what)
	case err != nil:
		d.add(n, path, show(text), "%s", err)
	case text == "": // netip takes it for the zero value
		d.add(n, path, "", "empty: give %s or leave the key out", what)
	}
}

// wanted says in words what a value should look like, where the type's own
// error does not say it well.
func wanted(v any) string {
	switch v.(type) {
	case netip.Addr:
		return "an address such as 192.0.2.1 or 2001:db8::1"
	case netip.Prefix:
		return "a prefix such as 10.1.0.0/16 or fd01::/64"
	case netip.AddrPort:
		return "an address and port such as 192.0.2.1:51820 or [2001:db8::1]:51820"
	case Key:
		return "a WireGuard public key: 32 bytes in base64"
	case Duration:
		return "a duration such as 50ms, 10s or 15m"
	}
	return ""
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.ScalarNode {
		d.add(n, path, given(n), "%s", "is not a single value")
		return
	}
	switch v.Kind() {
	case reflect.String:
		if n.Tag != "!!str" {
			d.add(n, path, show(n.Value), "is read as %s here: put it in quotes", strings.TrimPrefix(n.Tag, "!!"))
			return
		}
		v.SetString(n.Value)
	case reflect.Bool:
		if n.Tag != "!!bool" {
			d.add(n, path, show(n.Value), "%s", "is neither true nor false")
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	case reflect.Int:
		i, err := strconv.ParseInt(n.Value, 10, 32)
		if err != nil || n.Tag != "!!int" {
			d.add(n, path, show(n.Value), "%s", "is not a whole number in range")
			return
		}
		v.SetInt(i)
	case reflect.Uint16:
		u, err := strconv.ParseUint(n.Value, 10, 16)
		if err != nil || n.Tag != "!!int" {
			d.add(n, path, show(n.Value), "%s", "is not a whole number from 0 to 65535")
			return
		}
		v.SetUint(u)
	case reflect.Float64:
		f, err := strconv.ParseFloat(n.Value, 64)
		if err != nil || n.Tag != "!!int" && n.Tag != "!!float" {
			d.add(n, path, show(n.Value), "%s", "is not a number")
			return
		}
		v.SetFloat(f)
	default:
		panic("configs: no rule to read a " + v.Type().String())
	}
}

// given shows the value of a scalar for a message, nothing of a larger one.
func given(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode {
		return show(n.Value)
	}
	return ""
}
