package dashboard

import (
	"cmp"
	"context"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"patronus/configs"
	"patronus/dashboard/auth"
	"patronus/dashboard/control"
	"patronus/netstack/policy"
	"patronus/netstack/policy/simulate"
)

// PolicyBody is what can be written of a policy. A body that is YAML and a
// Kubernetes object itself is taken as Spec.
type PolicyBody struct {
	// Spec is the NetworkPolicy or ClusterNetworkPolicy as YAML or JSON.
	Spec string `json:"spec"`
	// Mode is enforced, staged or disabled; Enabled is a shorter way to say
	// enforced or disabled.
	Mode    configs.PolicyMode `json:"mode,omitempty"`
	Enabled *bool              `json:"enabled,omitempty"`
	Answer  string             `json:"answer,omitempty"`
	// Force writes a policy that a check warns of strongly, such as one that
	// cuts sites from their management.
	Force bool `json:"force,omitempty"`
}

// SimulateBody asks what a policy would change. Without Spec it is the policy
// as it is, in Mode; Remove asks what would be without it.
type SimulateBody struct {
	Spec   string             `json:"spec,omitempty"`
	Mode   configs.PolicyMode `json:"mode,omitempty"`
	Remove bool               `json:"remove,omitempty"`
	// Flows are flows to judge before and after.
	Flows []simulate.Flow `json:"flows,omitempty"`
}

// Simulation is what a policy would change.
type Simulation struct {
	Flows []simulate.Outcome `json:"flows"`
	// Differences are pairs of endpoints between which ports are lost or gained.
	Differences []simulate.Pair    `json:"differences"`
	Truncated   bool               `json:"truncated,omitempty"`
	Findings    []simulate.Finding `json:"findings"`
	Refused     bool               `json:"refused"`
}

func policyRoutes() []Route {
	dry := Param{"dry_run", "boolean", "check everything, write nothing"}
	return []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/policies", Name: "listPolicies", Access: needs(auth.ViewPolicies), Status: 200, Past: true,
			Doc: "List the network policies.", Answer: Page[Policy]{}, Query: listQuery(policyFields(), false), handle: (*Server).listPolicies,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/policies/:id", Name: "showPolicy", Access: needs(auth.ViewPolicies), Status: 200, Past: true,
			Doc: "Show one policy.", Answer: Policy{}, handle: (*Server).showPolicy,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/policies", Name: "createPolicy", Access: fabric(auth.ManagePolicies), Status: 202, Create: true,
			Doc: "Create a policy.", Body: PolicyBody{}, Answer: Accepted{}, Query: []Param{dry}, handle: (*Server).createPolicy,
		},
		{
			Method: http.MethodPut, Path: "/api/v1/policies/:id", Name: "updatePolicy", Access: fabric(auth.ManagePolicies), Status: 202,
			Doc: "Replace a policy.", Body: PolicyBody{}, Answer: Accepted{}, Query: []Param{dry}, handle: (*Server).updatePolicy,
		},
		{
			Method: http.MethodDelete, Path: "/api/v1/policies/:id", Name: "deletePolicy", Access: fabric(auth.DeletePolicies), Status: 202,
			Doc: "Remove a policy.", Answer: Accepted{}, Query: []Param{dry}, handle: (*Server).deletePolicy,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/policies/:id/simulate", Name: "simulatePolicy", Access: fabric(auth.ViewPolicies), Status: 200,
			Doc: "Say what a policy would change; it need not exist.", Body: SimulateBody{}, Answer: Simulation{}, handle: (*Server).simulatePolicy,
		},
	}
}

func policyFields() fields[Policy] {
	return fields[Policy]{
		"id":               func(p *Policy) value { return text(p.ID) },
		"kind":             func(p *Policy) value { return text(p.Kind) },
		"namespace":        func(p *Policy) value { return text(p.Namespace) },
		"name":             func(p *Policy) value { return text(p.Name) },
		"mode":             func(p *Policy) value { return text(string(p.Mode)) },
		"applies_to":       func(p *Policy) value { return number(float64(p.AppliesTo)) },
		"denied_flows":     func(p *Policy) value { return number(float64(p.DeniedFlows)) },
		"blocks_last_hour": func(p *Policy) value { return number(float64(deref(p.BlocksLastHour))) },
	}
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func (s *Server) listPolicies(r *request) error {
	v, err := s.seen(r)
	if err != nil {
		return err
	}
	return listed(r, v.policies, listing[Policy]{fields: policyFields()})
}

func (s *Server) showPolicy(r *request) error {
	v, err := s.seen(r)
	if err != nil {
		return err
	}
	p, ok := v.policies.find(r.Params("id"))
	if !ok {
		return notFound("policy", r.Params("id"))
	}
	if now := s.o.Plane.Current().Network.Policies; r.at.IsZero() {
		if at := policyAt(now, p.ID); at >= 0 {
			r.Set(fiber.HeaderETag, tag(now[at]))
		}
	}
	return r.answer(http.StatusOK, p)
}

// policyAt is the place of a policy by its id, -1 if there is none.
func policyAt(list []configs.Policy, id string) int {
	for i := range list {
		p, err := policy.ParsePolicy([]byte(list[i].Spec), "spec")
		if err == nil && policyID(p.Namespace(), p.Name()) == id {
			return i
		}
	}
	return -1
}

// policyBody reads a body that is a PolicyBody, or the policy itself.
func (r *request) policyBody() (b PolicyBody, c configs.Policy, id string, err error) {
	kind, _, _ := mime.ParseMediaType(r.Get(fiber.HeaderContentType)) // body speaks of what is unreadable
	if isYAML(kind) && strings.Contains(string(r.Body()), "apiVersion") {
		b.Spec = string(r.Body())
	} else if err := r.body(&b); err != nil {
		return b, c, "", err
	}
	c = configs.Policy{Mode: b.Mode, Answer: b.Answer, Spec: b.Spec}
	if b.Enabled != nil {
		mode := configs.PolicyDisabled
		if *b.Enabled {
			mode = configs.PolicyEnforced
		}
		if b.Mode != "" && (b.Mode == configs.PolicyDisabled) == *b.Enabled {
			return b, c, "", invalid("enabled", "contradicts mode")
		}
		c.Mode = cmp.Or(b.Mode, mode)
	}
	if strings.TrimSpace(b.Spec) == "" {
		return b, c, "", invalid("spec", "is missing: the NetworkPolicy as YAML")
	}
	o, err := policy.ParsePolicy([]byte(b.Spec), "spec")
	if err != nil {
		return b, c, "", err
	}
	return b, c, policyID(o.Namespace(), o.Name()), nil
}

func (s *Server) createPolicy(r *request) error {
	b, c, id, err := r.policyBody()
	if err != nil {
		return err
	}
	return s.commit(r, control.Change{
		Action: "create_policy", Kind: "policy", ID: id, Show: showPolicy(id),
		Edit: func(next *configs.Network) error {
			if policyAt(next.Policies, id) >= 0 {
				return problem(http.StatusConflict, "exists", fmt.Sprintf("there is a policy %q already", id))
			}
			next.Policies = append(next.Policies, c)
			return s.refusal(c, b.Force)
		},
	}, "/api/v1/policies/"+id)
}

func (s *Server) updatePolicy(r *request) error {
	id := r.Params("id")
	b, c, named, err := r.policyBody()
	if err != nil {
		return err
	}
	if named != id {
		return invalid("spec.metadata.name", fmt.Sprintf("makes this policy %q; a policy keeps its name", named))
	}
	return s.commit(r, control.Change{
		Action: "update_policy", Kind: "policy", ID: id, Show: showPolicy(id),
		Edit: func(next *configs.Network) error {
			at := policyAt(next.Policies, id)
			if at < 0 {
				return notFound("policy", id)
			}
			if err := r.match(tag(next.Policies[at])); err != nil {
				return err
			}
			next.Policies[at] = c
			return s.refusal(c, b.Force)
		},
	}, "/api/v1/policies/"+id)
}

func (s *Server) deletePolicy(r *request) error {
	id := r.Params("id")
	return s.commit(r, control.Change{
		Action: "delete_policy", Kind: "policy", ID: id, Show: showPolicy(id),
		Edit: func(next *configs.Network) error {
			at := policyAt(next.Policies, id)
			if at < 0 {
				return notFound("policy", id)
			}
			if err := r.match(tag(next.Policies[at])); err != nil {
				return err
			}
			next.Policies = slices.Delete(next.Policies, at, at+1)
			return nil
		},
	}, "")
}

// showPolicy is a policy in the audit log.
func showPolicy(id string) func(*configs.Network) any {
	return func(n *configs.Network) any {
		if at := policyAt(n.Policies, id); at >= 0 {
			return n.Policies[at]
		}
		return nil
	}
}

// management are the addresses by which sites are managed: a policy that cuts
// one off is refused unless forced.
func management(c *configs.Config) []simulate.Management {
	list := make([]simulate.Management, 0, len(c.Sites))
	for i := range c.Sites {
		list = append(list, simulate.Management{Site: c.Sites[i].Name, Addr: c.OverlayAddress(&c.Sites[i])})
	}
	return list
}

// refusal says why a policy should not be written, nil if nothing speaks
// against it. It is called within a commit: what is current stays so.
func (s *Server) refusal(added configs.Policy, force bool) error {
	if force || added.Mode == configs.PolicyDisabled || added.Mode == configs.PolicyStaged {
		return nil
	}
	c := s.o.Plane.Current().Config
	w, err := world(c, nil, &added)
	if err != nil {
		return err
	}
	var bad []FieldProblem
	for _, f := range simulate.Lint(w, simulate.LintOptions{Sites: c.Sites, Management: management(c)}) {
		if f.Refused {
			bad = append(bad, FieldProblem{Field: findingField(f), Detail: f.Text})
		}
	}
	if len(bad) == 0 {
		return nil
	}
	p := problem(http.StatusConflict, "refused", "the policy would cut something off that must not be; send force to write it anyway")
	p.Errors = bad
	return p
}

func findingField(f simulate.Finding) string {
	if f.Rule >= 0 && f.Direction != "" {
		return fmt.Sprintf("spec.%s[%d]", f.Direction, f.Rule)
	}
	return "spec"
}

// world is what a change of one policy is judged in.
func world(c *configs.Config, removed []string, added *configs.Policy) (*simulate.World, error) {
	in, err := control.Input(c)
	if err != nil {
		return nil, err
	}
	var next []policy.Policy
	if added != nil {
		p, err := policy.FromConfig(*added, "spec")
		if err != nil {
			return nil, err
		}
		next = append(next, p)
	}
	return simulate.NewWorld(in, removed, next)
}

// Bounds of a simulation.
const (
	maxSimulated   = 1000 // flows that are asked about
	maxDifferences = 2000 // pairs that are shown
	simulateFor    = 10 * time.Second
)

func (s *Server) simulatePolicy(r *request) error {
	id := r.Params("id")
	var b SimulateBody
	if len(r.Body()) > 0 {
		if err := r.body(&b); err != nil {
			return err
		}
	}
	if len(b.Flows) > maxSimulated {
		return invalid("flows", fmt.Sprintf("are more than %d", maxSimulated))
	}
	config := s.o.Plane.Current().Config
	at := policyAt(config.Policies, id)
	var added *configs.Policy
	var removed []string
	switch {
	case b.Remove && b.Spec != "":
		return invalid("remove", "contradicts spec")
	case b.Spec != "":
		added = &configs.Policy{Mode: b.Mode, Spec: b.Spec}
		o, err := policy.ParsePolicy([]byte(b.Spec), "spec")
		if err != nil {
			return err
		}
		if named := policyID(o.Namespace(), o.Name()); named != id {
			return invalid("spec.metadata.name", fmt.Sprintf("makes this policy %q", named))
		}
		if at >= 0 {
			added.Answer = config.Policies[at].Answer
		}
	case at < 0:
		return notFound("policy", id)
	case b.Remove:
		removed = []string{longPolicyID(id)}
	default:
		p := config.Policies[at]
		p.Mode = cmp.Or(b.Mode, configs.PolicyEnforced)
		added = &p
	}
	if added != nil {
		switch added.Mode {
		case "", configs.PolicyEnforced:
			added.Mode = configs.PolicyEnforced
		case configs.PolicyStaged, configs.PolicyDisabled:
			// What is not enforced changes nothing; the question is what it would.
			return invalid("mode", "must be enforced: a simulation asks what enforcing would change")
		default:
			return invalid("mode", "is not a mode: enforced, staged or disabled")
		}
	}
	return s.simulate(r, config, removed, added, b.Flows)
}

func (s *Server) simulate(r *request, config *configs.Config, removed []string, added *configs.Policy, flows []simulate.Flow) error {
	ctx, cancel := context.WithTimeout(r.UserContext(), simulateFor)
	defer cancel()
	w, err := world(config, removed, added)
	if err != nil {
		return err
	}
	out := Simulation{Flows: []simulate.Outcome{}, Differences: []simulate.Pair{}, Findings: []simulate.Finding{}}
	for i, f := range flows {
		o, err := w.Flow(f)
		if err != nil {
			return invalid(fmt.Sprintf("flows[%d]", i), plain(err.Error()))
		}
		out.Flows = append(out.Flows, o)
	}
	diff, err := w.Diff(ctx)
	if err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	if len(diff) > maxDifferences {
		diff, out.Truncated = diff[:maxDifferences], true
	}
	if pairs := w.DifferencePairs(diff); len(pairs) > 0 {
		out.Differences = pairs
	}
	for _, f := range simulate.Lint(w, simulate.LintOptions{Sites: config.Sites, Management: management(config)}) {
		out.Findings = append(out.Findings, f)
		out.Refused = out.Refused || f.Refused
	}
	return r.answer(http.StatusOK, out)
}
