package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Parse reads a configuration as YAML, fills in the defaults and checks it.
// name is the file's name in messages. Every problem that can be found is
// reported at once, as [Problems]; nothing is returned beside an error.
//
// The YAML is a strict subset: one document, no anchors, aliases, merge keys,
// tags or duplicate keys, at most 1 MiB and 64 levels. Unknown keys and values
// of the wrong type are problems; a key without a value counts as not given.
func Parse(name string, text []byte) (*Config, error) {
	root, problem := parseTree(text)
	if problem != nil {
		problem.File = name
		return nil, Problems{problem}
	}
	d := decoder{file: name}
	d.checkTree(root, "", 1)
	var c Config
	d.value(root, reflect.ValueOf(&c).Elem(), "")
	out := clone(reflect.ValueOf(c)).Interface().(Config)
	out.withDefaults()
	for _, e := range out.problems().list {
		if d.failed(e.Path) {
			continue // what follows from a value that could not be read
		}
		e.File = name
		e.Line, e.Column = locate(root, e.Path)
		d.report.add(e)
	}
	if err := d.report.err(); err != nil {
		return nil, err
	}
	return &out, nil
}

// parseTree turns text into the tree of its only document.
func parseTree(text []byte) (*yaml.Node, *FieldError) {
	if problem := guard(text); problem != nil {
		return nil, problem
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF), err == nil && len(doc.Content) == 0:
		return nil, &FieldError{Why: "the file is empty"}
	case err != nil:
		return nil, syntaxError(err)
	}
	switch err := dec.Decode(&second); {
	case errors.Is(err, io.EOF):
		return doc.Content[0], nil
	case err != nil:
		return nil, syntaxError(err)
	}
	return nil, &FieldError{Line: second.Line, Column: second.Column, Why: "a second document: one file holds one configuration"}
}

var yamlMessage = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntaxError takes the line out of the YAML parser's message; it has no column.
func syntaxError(err error) *FieldError {
	text := err.Error()
	m := yamlMessage.FindStringSubmatch(text)
	if m == nil {
		return &FieldError{Why: text}
	}
	line, _ := strconv.Atoi(m[1]) // an absent line is 0, unknown
	return &FieldError{Line: line, Why: "not YAML: " + text[len(m[0]):]}
}

// decoder fills values from a tree and gathers what does not fit.
type decoder struct {
	file   string
	report report
	bad    []string // paths that could not be read
}

func (d *decoder) add(n *yaml.Node, path, value, why string, args ...any) {
	if len(d.bad) < maxProblems {
		d.bad = append(d.bad, path)
	}
	d.report.add(&FieldError{
		File: d.file, Line: n.Line, Column: n.Column,
		Path: path, Value: value, Why: fmt.Sprintf(why, args...),
	})
}

// failed reports whether the value at path, or one that it is part of, or a
// part of it could not be read.
func (d *decoder) failed(path string) bool {
	for _, bad := range d.bad {
		if within(path, bad) || within(bad, path) {
			return true
		}
	}
	return false
}

// within reports whether path is outer or something inside of it.
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (rest == "" || outer == "" || rest[0] == '.' || rest[0] == '[')
}

// checkTree refuses what the subset leaves out, everywhere, below unknown keys too.
func (d *decoder) checkTree(n *yaml.Node, path string, depth int) {
	switch {
	case depth > maxDepth:
		d.add(n, path, "", "nested deeper than %d levels", maxDepth)
		return
	case n.Kind == yaml.AliasNode:
		d.add(n, path, "", "aliases are not allowed: write the value out")
		return
	case n.Anchor != "":
		d.add(n, path, "", "anchors are not allowed")
	case n.Style&yaml.TaggedStyle != 0:
		d.add(n, path, "", "tags are not allowed")
	}
	switch n.Kind {
	case yaml.MappingNode:
		seen := make(map[string]int, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if key.Kind != yaml.ScalarNode {
				d.add(key, path, "", "a key must be a plain word")
				continue
			}
			sub := join(path, key.Value)
			switch line, twice := seen[key.Value]; {
			case key.Tag == "!!merge":
				d.add(key, sub, "", "merge keys are not allowed: write the values out")
			case key.Anchor != "" || key.Style&yaml.TaggedStyle != 0:
				d.add(key, sub, "", "anchors and tags are not allowed")
			case twice:
				d.add(key, sub, "", "given twice, first in line %d", line)
			}
			seen[key.Value] = key.Line
			d.checkTree(value, sub, depth+1)
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			d.checkTree(item, index(path, i), depth+1)
		}
	}
}

func join(path, key string) string {
	const most = 64
	if len(key) > most {
		key = show(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// locate finds the place of a path in a tree: that of the key or entry itself,
// or of what holds it where it was not given.
func locate(n *yaml.Node, path string) (line, column int) {
	line, column = n.Line, n.Column
	for path != "" {
		var step string
		if path[0] == '[' {
			end := strings.IndexByte(path, ']')
			step, path = path[1:end], path[end+1:]
			i, err := strconv.Atoi(step)
			if err != nil || n.Kind != yaml.SequenceNode || i >= len(n.Content) {
				return line, column
			}
			n = n.Content[i]
			line, column = n.Line, n.Column
			continue
		}
		path = strings.TrimPrefix(path, ".")
		end := strings.IndexAny(path, ".[")
		if end < 0 {
			end = len(path)
		}
		step, path = path[:end], path[end:]
		key, value := lookup(n, step)
		if key == nil {
			return line, column
		}
		n = value
		line, column = value.Line, value.Column
		if value.Kind != yaml.ScalarNode || value.Value == "" {
			line, column = key.Line, key.Column
		}
	}
	return line, column
}

func lookup(n *yaml.Node, key string) (k, v *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}
