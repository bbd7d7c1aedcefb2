package policy

import (
	"math/bits"
	"slices"
	"sort"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// requirement is one condition on a label (labels.Requirement.Matches of
// apimachinery): NotIn matches an absent key too, In does not.
type requirement struct {
	key    string
	op     metav1.LabelSelectorOperator
	values []string // sorted
}

func (q *requirement) matches(labels map[string]string) bool {
	v, ok := labels[q.key]
	switch q.op {
	case metav1.LabelSelectorOpIn:
		return ok && slices.Contains(q.values, v)
	case metav1.LabelSelectorOpNotIn:
		return !ok || !slices.Contains(q.values, v)
	case metav1.LabelSelectorOpExists:
		return ok
	}
	return !ok // DoesNotExist
}

// selector matches labels that meet all its requirements.
type selector []requirement

func newSelector(s *metav1.LabelSelector) selector {
	if s == nil {
		return nil
	}
	out := make(selector, 0, len(s.MatchLabels)+len(s.MatchExpressions))
	for k, v := range s.MatchLabels {
		out = append(out, requirement{k, metav1.LabelSelectorOpIn, []string{v}})
	}
	for _, e := range s.MatchExpressions {
		values := slices.Clone(e.Values)
		sort.Strings(values)
		out = append(out, requirement{e.Key, e.Operator, slices.Compact(values)})
	}
	slices.SortFunc(out, func(a, b requirement) int {
		if c := strings.Compare(a.key, b.key); c != 0 {
			return c
		}
		if c := strings.Compare(string(a.op), string(b.op)); c != 0 {
			return c
		}
		return slices.Compare(a.values, b.values)
	})
	return out
}

func (s selector) matches(labels map[string]string) bool {
	for i := range s {
		if !s[i].matches(labels) {
			return false
		}
	}
	return true
}

// canonical is equal for selectors that are written the same, up to order.
func (s selector) canonical(b []byte) []byte {
	b = append(b, '(')
	for _, q := range s {
		b = appendQuoted(append(b, q.op[0], q.op[len(q.op)-1]), q.key) // In, Nn, Es, Dt
		for _, v := range q.values {
			b = appendQuoted(append(b, '='), v)
		}
	}
	return append(b, ')')
}

// appendQuoted appends a string so that no other sequence reads the same.
func appendQuoted(b []byte, s string) []byte {
	b = strconv.AppendInt(b, int64(len(s)), 10)
	b = append(b, ':')
	return append(b, s...)
}

// scope is a set of endpoints as one peer or subject describes it: those of one
// namespace, or of the namespaces that a selector matches, that match pods.
type scope struct {
	namespace  string // "" means namespaces decides
	namespaces selector
	pods       selector
}

func (s *scope) matches(id *identity) bool {
	if s.namespace != "" {
		return s.namespace == id.space.name && s.pods.matches(id.labels)
	}
	return s.namespaces.matches(id.space.labels) && s.pods.matches(id.labels)
}

func (s *scope) canonical() string {
	b := appendQuoted(nil, s.namespace)
	b = s.namespaces.canonical(b)
	return string(s.pods.canonical(b))
}

// audience is a set of endpoints that rules or subjects refer to: the union of
// scopes. Policies that mean the same set share it.
type audience struct {
	id       uint32
	key      string
	scopes   []scope
	refs     int
	subjects int    // of refs, how many are a policy's subject
	byLabels bool   // depends on namespace labels
	members  bitset // identities
}

func (a *audience) matches(id *identity) bool {
	for i := range a.scopes {
		if a.scopes[i].matches(id) {
			return true
		}
	}
	return false
}

func audienceKey(scopes []scope) string {
	parts := make([]string, len(scopes))
	for i := range scopes {
		parts[i] = scopes[i].canonical()
	}
	sort.Strings(parts)
	return strings.Join(slices.Compact(parts), "|")
}

// bitset is a set of small numbers.
type bitset []uint64

func (b bitset) has(i uint32) bool {
	w := i >> 6
	return w < uint32(len(b)) && b[w]>>(i&63)&1 != 0
}

// set puts i in or takes it out.
func (b *bitset) set(i uint32, on bool) {
	for on && int(i>>6) >= len(*b) {
		*b = append(*b, 0)
	}
	switch {
	case on:
		(*b)[i>>6] |= 1 << (i & 63)
	case int(i>>6) < len(*b):
		(*b)[i>>6] &^= 1 << (i & 63)
	}
}

func (b bitset) each(yield func(uint32) bool) {
	for w, word := range b {
		for ; word != 0; word &= word - 1 {
			if !yield(uint32(w)<<6 + uint32(bits.TrailingZeros64(word))) {
				return
			}
		}
	}
}
