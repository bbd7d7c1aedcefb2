package appliance

import (
	"patronus/configs"
	"patronus/dashboard/control"
	"patronus/netstack/policy"
)

// compileRules makes the ruleset of a configuration. All bad policies are
// named, each with line and column in its own text; two policies of one name
// are refused, since decisions and counts tell them by it. A dashboard judges
// by the same function before it commits, so that both refuse the same.
func compileRules(cfg *configs.Config) (*policy.Ruleset, error) {
	return control.Compile(cfg)
}
