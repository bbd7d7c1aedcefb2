package policy

import (
	"encoding/json"
	"fmt"
	"io"

	"sigs.k8s.io/yaml"
)

// CheckPolicy validates all policies of a text as [ParsePolicies] does. With
// format "yaml" or "json" it writes them to out as the API server would return
// them, defaults filled in; with "" it writes nothing.
func CheckPolicy(in []byte, name, format string, out io.Writer) error {
	all, err := ParsePolicies(in, name)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("%s:1:1: no policy: %w", name, ErrNotPolicy)
	}
	for i, o := range all {
		text, err := o.format(format)
		if err != nil {
			return fmt.Errorf("print %s: %w", o.ID(), err)
		}
		if i > 0 && format == "yaml" {
			text = append([]byte("---\n"), text...)
		}
		if _, err := out.Write(text); err != nil {
			return fmt.Errorf("print %s: %w", o.ID(), err)
		}
	}
	return nil
}

// format prints an object without what only a server knows.
func (o Object) format(format string) ([]byte, error) {
	if format == "" {
		return nil, nil
	}
	var object any = o.Network
	if o.Cluster != nil {
		object = o.Cluster
	}
	text, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, err
	}
	delete(m, "status")
	if meta, ok := m["metadata"].(map[string]any); ok && meta["creationTimestamp"] == nil {
		delete(meta, "creationTimestamp")
	}
	switch format {
	case "yaml":
		return yaml.Marshal(m)
	case "json":
		text, err = json.MarshalIndent(m, "", "  ")
		return append(text, '\n'), err
	}
	return nil, fmt.Errorf("unknown format %q: expected yaml or json", format)
}

// YAML is the object as YAML with its defaults filled in.
func (o Object) YAML() ([]byte, error) { return o.format("yaml") }
