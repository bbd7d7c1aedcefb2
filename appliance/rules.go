package appliance

import (
	"errors"
	"fmt"

	"patronus/configs"
	"patronus/netstack/policy"
)

// compileRules makes the ruleset of a configuration. All bad policies are
// named, each with line and column in its own text.
func compileRules(cfg *configs.Config) (*policy.Ruleset, error) {
	in := policy.Input{Namespaces: cfg.Namespaces, Endpoints: cfg.Hosts}
	var bad []error
	for i := range cfg.Policies {
		p, err := policy.FromConfig(cfg.Policies[i], fmt.Sprintf("policies[%d]", i))
		if err != nil {
			bad = append(bad, err)
			continue
		}
		in.Policies = append(in.Policies, p)
	}
	if err := errors.Join(bad...); err != nil {
		return nil, err
	}
	return policy.Compile(in)
}
