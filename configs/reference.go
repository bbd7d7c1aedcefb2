package configs

import (
	_ "embed"
)

//go:embed reference.yaml
var reference string

// Reference is a complete configuration that explains every key, as
// `patronus config reference` prints it. It parses.
func Reference() string { return reference }
