package alert

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	strict "sigs.k8s.io/json"

	"patronus/configs"
	"patronus/netstack/policy/manifest"
)

// maxText bounds a text of rules.
const maxText = 1 << 20

// Parse reads rules from YAML or JSON: one rule, or a list of them. Rules
// without an id get one of their name. What is wrong comes as
// *manifest.Problems, with line and column.
func Parse(text []byte) ([]configs.AlertRule, error) {
	docs, err := manifest.Parse(text, "rules", maxText)
	if err != nil {
		return nil, err
	}
	var problems manifest.Problems
	var rules []configs.AlertRule
	for _, d := range docs {
		root := d.Root()
		if root.Kind() != manifest.Sequence {
			rules = append(rules, read(root, "", &problems))
			continue
		}
		i := 0
		for n := range root.Entries {
			rules = append(rules, read(n, fmt.Sprintf("[%d]", i), &problems))
			i++
		}
	}
	if err := problems.Err(); err != nil {
		return nil, err
	}
	if len(rules) == 0 {
		return nil, &configs.FieldError{Path: "rules", Why: "the text has no rule"}
	}
	return rules, nil
}

// texts are the fields that have a form of their own.
func texts() map[string]encoding.TextUnmarshaler {
	return map[string]encoding.TextUnmarshaler{
		"severity": new(configs.Severity), "for": new(configs.Duration), "clear_for": new(configs.Duration),
		"condition.duration": new(configs.Duration), "condition.window": new(configs.Duration),
	}
}

func read(n manifest.Node, at string, problems *manifest.Problems) (r configs.AlertRule) {
	told := false
	tell := func(field, why string) {
		told = true
		problems.Add(n.Find(field).Problemf(strings.Trim(at+"."+field, "."), why))
	}
	if n.Kind() != manifest.Mapping {
		tell("", "is no rule: name, condition and severity")
		return r
	}
	forms := texts()
	for _, field := range slices.Sorted(maps.Keys(forms)) {
		v := n
		for key := range strings.SplitSeq(field, ".") {
			v = v.Key(key)
		}
		if v.Present() && !v.Null() {
			if err := forms[field].UnmarshalText([]byte(v.Text())); err != nil {
				tell(field, err.Error())
			}
		}
	}
	if told {
		return r
	}
	wrong, err := strict.UnmarshalStrict(n.JSON(), &r)
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &kind):
		tell(kind.Field, "is of the kind "+kind.Value+", which does not fit")
	case err != nil:
		tell("", "does not fit: "+err.Error())
	}
	for _, w := range wrong {
		name, why, _ := strings.Cut(strings.TrimSuffix(w.Error(), `"`), ` field "`)
		tell(why, map[string]string{"unknown": "is no field of a rule", "duplicate": "is given twice"}[name])
	}
	if told {
		return r
	}
	if r.ID == "" {
		r.ID = configs.AlertID(r.Name)
	}
	var field *configs.FieldError
	for _, err := range unjoin(r.Validate("")) {
		if errors.As(err, &field) {
			tell(strings.TrimPrefix(field.Path, "."), strings.TrimSpace(field.Value+" "+field.Why))
		}
	}
	return r
}

func unjoin(err error) []error {
	if list, ok := err.(interface{ Unwrap() []error }); ok {
		return list.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
