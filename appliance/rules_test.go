package appliance

import (
	"strings"
	"testing"

	"patronus/configs"
)

func TestCompileRulesRefusesTwins(t *testing.T) {
	spec := func(kind, name, namespace string) configs.Policy {
		text := "apiVersion: networking.k8s.io/v1\nkind: " + kind + "\nmetadata:\n  name: " + name + "\n  namespace: " + namespace + "\nspec:\n  podSelector: {}\n"
		return configs.Policy{Spec: text}
	}
	web, other := spec("NetworkPolicy", "web", "shop"), spec("NetworkPolicy", "web", "office")
	for _, test := range []struct {
		name     string
		policies []configs.Policy
		wrong    []string // places that are named
	}{
		{"none", nil, nil},
		{"one name in two namespaces", []configs.Policy{web, other}, nil},
		{"twins", []configs.Policy{web, other, web}, []string{"policies[2].spec"}},
		{"three of a name", []configs.Policy{web, web, web}, []string{"policies[1].spec", "policies[2].spec"}},
		{"a disabled twin", []configs.Policy{web, {Spec: web.Spec, Mode: configs.PolicyDisabled}}, []string{"policies[1].spec"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := compileRules(&configs.Config{
				Namespaces: []configs.Namespace{{Name: "shop"}, {Name: "office"}}, Policies: test.policies,
			})
			if (err != nil) != (test.wrong != nil) {
				t.Fatalf("refused: %v, want that of %v", err, test.wrong)
			}
			for _, place := range test.wrong {
				if want := place + ": NetworkPolicy/shop/web is the name of policies[0] already"; !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}
