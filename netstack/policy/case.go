package policy

import (
	"fmt"
	"net/netip"

	"patronus/netstack/policy/manifest"
)

// ReadCase reads the namespaces, endpoints and policies of a case file as
// `patronus policy verdicts` takes it, which must be one document; its flows
// and packets are not judged. name is the file that errors name.
func ReadCase(text []byte, name string) (Input, error) {
	docs, err := manifest.Parse(text, name, MaxCaseSize)
	if err != nil {
		return Input{}, err
	}
	if len(docs) != 1 {
		return Input{}, fmt.Errorf("%s: %d documents, expected one case", name, len(docs))
	}
	n := docs[0].Root()
	if n.Kind() != manifest.Mapping {
		return Input{}, fmt.Errorf("%s: expected a case: a mapping with endpoints and policies", name)
	}
	c := caseFile{node: n, addresses: map[string][]netip.Addr{}}
	c.decode()
	if err := c.problems.Err(); err != nil {
		return Input{}, err
	}
	in := Input{Namespaces: c.namespaces, Endpoints: c.hostEndpoints(), Policies: c.policies}
	return in, c.problems.Err()
}
