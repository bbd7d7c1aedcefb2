package policy

import (
	"errors"
	"fmt"
	"strings"

	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cluster "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"patronus/configs"
	"patronus/netstack/policy/manifest"
)

// MaxPolicySize is the largest policy text that is read, bytes.
const MaxPolicySize = 1 << 20

// ErrNotPolicy means a text holds no policy, or something else.
var ErrNotPolicy = errors.New("not a policy")

// The kinds of policy.
const (
	KindNetworkPolicy        = "NetworkPolicy"
	KindClusterNetworkPolicy = "ClusterNetworkPolicy"
)

// Object is one policy: exactly one of its fields is set. It is validated and
// has its defaults filled in, and must not be changed.
type Object struct {
	Network *networking.NetworkPolicy
	Cluster *cluster.ClusterNetworkPolicy
}

// Valid reports whether o holds a policy.
func (o Object) Valid() bool { return o.Network != nil || o.Cluster != nil }

// Kind is NetworkPolicy or ClusterNetworkPolicy.
func (o Object) Kind() string {
	if o.Cluster != nil {
		return KindClusterNetworkPolicy
	}
	return KindNetworkPolicy
}

func (o Object) meta() *metav1.ObjectMeta {
	if o.Cluster != nil {
		return &o.Cluster.ObjectMeta
	}
	return &o.Network.ObjectMeta
}

// Name is the object's name.
func (o Object) Name() string { return o.meta().Name }

// Namespace is the object's namespace, empty for a ClusterNetworkPolicy.
func (o Object) Namespace() string { return o.meta().Namespace }

// ID is "Kind/namespace/name", by which a policy is known everywhere. A
// ClusterNetworkPolicy has no namespace: "ClusterNetworkPolicy//name".
func (o Object) ID() string { return o.Kind() + "/" + o.Namespace() + "/" + o.Name() }

// Policy is an object with what Patronus keeps beside it.
type Policy struct {
	Object
	Mode   configs.PolicyMode // "" is enforced
	Reject bool               // a denied packet is answered instead of dropped silently
}

// FromConfig parses a configured policy. name is the file that errors name.
func FromConfig(c configs.Policy, name string) (Policy, error) {
	o, err := ParsePolicy([]byte(c.Spec), name)
	return Policy{Object: o, Mode: c.Mode, Reject: c.Answer == "reject"}, err
}

// ParsePolicy reads exactly one policy from YAML or JSON, as strictly as
// kube-apiserver 1.37 with strict field validation, and fills its defaults in.
// name is the file that errors name. The error is a *[manifest.Problems] that
// lists each problem with file, line, column and field, or wraps
// [manifest.ErrSize] or [ErrNotPolicy].
func ParsePolicy(text []byte, name string) (Object, error) {
	all, err := ParsePolicies(text, name)
	switch {
	case err != nil:
		return Object{}, err
	case len(all) != 1:
		return Object{}, fmt.Errorf("%s:1:1: %d policies, expected one: %w", name, len(all), ErrNotPolicy)
	}
	return all[0], nil
}

// ParsePolicies reads all policies of a text: YAML documents, or JSON objects
// one after another. See [ParsePolicy].
func ParsePolicies(text []byte, name string) ([]Object, error) {
	docs, err := manifest.Parse(text, name, MaxPolicySize)
	if err != nil {
		return nil, err
	}
	var problems manifest.Problems
	all := make([]Object, 0, len(docs))
	for _, d := range docs {
		all = append(all, parseObject(d.Root(), &problems))
	}
	return all, problems.Err()
}

// parseObject reads the policy at a node. It is invalid if there are problems.
func parseObject(n manifest.Node, problems *manifest.Problems) Object {
	if n.Kind() != manifest.Mapping {
		problems.Add(n.Problemf("", "expected a policy object"))
		return Object{}
	}
	before := len(problems.List)
	var head struct{ kind, version string }
	for k, v := range n.Pairs {
		switch {
		case v.Kind() != manifest.Scalar:
		case k.Text() == "kind":
			head.kind = v.Text()
		case k.Text() == "apiVersion":
			head.version = v.Text()
		}
	}
	c := checker{node: n, problems: problems}
	var o Object
	switch {
	case head.kind == "":
		c.fail("kind", "Required value: Object 'Kind' is missing")
	case head.version == "":
		c.fail("apiVersion", "Required value: Object 'apiVersion' is missing")
	case head.kind == KindNetworkPolicy && head.version == networking.SchemeGroupVersion.String():
		o.Network = new(networking.NetworkPolicy)
		n.Decode(o.Network, "", problems)
		if len(problems.List) == before {
			defaultNetwork(o.Network)
			c.network(o.Network)
		}
	case head.kind == KindClusterNetworkPolicy && head.version == cluster.GroupVersion.String():
		o.Cluster = new(cluster.ClusterNetworkPolicy)
		n.Decode(o.Cluster, "", problems)
		if len(problems.List) == before {
			c.cluster(o.Cluster)
		}
	default:
		c.fail("kind", fmt.Sprintf("no kind %q in %q: expected %s of %s or %s of %s", head.kind, head.version,
			KindNetworkPolicy, networking.SchemeGroupVersion, KindClusterNetworkPolicy, cluster.GroupVersion))
	}
	if len(problems.List) > before {
		return Object{}
	}
	return o
}

// ParseID takes an [Object.ID] apart.
func ParseID(id string) (kind, namespace, name string, ok bool) {
	parts := strings.SplitN(id, "/", 3)
	if len(parts) != 3 || parts[0] != KindNetworkPolicy && parts[0] != KindClusterNetworkPolicy || parts[2] == "" {
		return "", "", "", false
	}
	return parts[0], parts[1], parts[2], true
}
