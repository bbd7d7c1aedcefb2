package netstack

import (
	"sync/atomic"

	"patronus/netstack/packet"
	"patronus/netstack/policy"
)

// policyHits counts the flows that one policy decided, and those that it would
// decide otherwise if it were not staged.
type policyHits struct {
	id              string
	allowed, denied atomic.Uint64
	staged          atomic.Uint64
}

// PolicyHits is a copy of one policy's counts since the appliance has had it.
type PolicyHits struct {
	Policy  string `json:"policy"`
	Mode    string `json:"mode"`
	Allowed uint64 `json:"allowed_flows"`
	Denied  uint64 `json:"denied_flows"`
	// Staged counts flows that would get another verdict if the staged policies
	// were enforced, on the policy that would decide them.
	Staged uint64 `json:"staged_flows"`
}

// newHits makes the counters of a ruleset; a policy that was there before goes
// on counting where it was.
func newHits(rules *policy.Ruleset, old []*policyHits) []*policyHits {
	before := make(map[string]*policyHits, len(old))
	for _, h := range old {
		if h != nil {
			before[h.id] = h
		}
	}
	hits := make([]*policyHits, rules.Policies())
	for i := range hits {
		id := rules.PolicyID(policy.PolicyRef(i))
		if id == "" {
			continue
		}
		if hits[i] = before[id]; hits[i] == nil {
			hits[i] = &policyHits{id: id}
		}
	}
	return hits
}

// hit counts a new decision, and what the staged policies would make of it.
func (s *snapshot) hit(k *packet.Key, answer *policy.Decision, egress, ingress bool) {
	if answer.Policy >= 0 && int(answer.Policy) < len(s.hits) && s.hits[answer.Policy] != nil {
		if answer.Allowed {
			s.hits[answer.Policy].allowed.Add(1)
		} else {
			s.hits[answer.Policy].denied.Add(1)
		}
	}
	if !s.rules.Staged() {
		return
	}
	staged := s.rules.EvaluateStaged(k, egress, ingress)
	if staged.Allowed != answer.Allowed && staged.Policy >= 0 && int(staged.Policy) < len(s.hits) && s.hits[staged.Policy] != nil {
		s.hits[staged.Policy].staged.Add(1)
	}
}

// policyHits copies the counters.
func (s *snapshot) policyHits() []PolicyHits {
	var all []PolicyHits
	for i, h := range s.hits {
		if h == nil {
			continue
		}
		p, _ := s.rules.Policy(policy.PolicyRef(i))
		mode := string(p.Mode)
		if mode == "" {
			mode = "enforced"
		}
		all = append(all, PolicyHits{Policy: h.id, Mode: mode, Allowed: h.allowed.Load(), Denied: h.denied.Load(), Staged: h.staged.Load()})
	}
	return all
}
