package auth

import (
	"encoding/json"
	"fmt"
	"math/bits"
)

// Permission is one thing that a route may ask for.
type Permission uint8

// The permissions. The first twelve are the product's published ones; the rest
// is what the other routes need.
const (
	ViewSites Permission = iota
	ManageSites
	ViewPaths
	TestPaths
	ViewFlows
	DeleteFlows
	ViewPolicies
	ManagePolicies
	ViewMetrics
	ManageAlerts
	ViewConfig
	ManageConfig

	ViewEvents
	DeleteSites
	DeletePolicies
	DeleteConfig
	ViewAudit
	ManageUsers
	ManageNodes
	CapturePackets

	permissions // how many there are
)

var permissionNames = [permissions]string{
	ViewSites: "view_sites", ManageSites: "manage_sites",
	ViewPaths: "view_paths", TestPaths: "test_paths",
	ViewFlows: "view_flows", DeleteFlows: "delete_flows",
	ViewPolicies: "view_policies", ManagePolicies: "manage_policies",
	ViewMetrics: "view_metrics", ManageAlerts: "manage_alerts",
	ViewConfig: "view_config", ManageConfig: "manage_config",
	ViewEvents: "view_events", DeleteSites: "delete_sites",
	DeletePolicies: "delete_policies", DeleteConfig: "delete_config",
	ViewAudit: "view_audit", ManageUsers: "manage_users",
	ManageNodes: "manage_nodes", CapturePackets: "capture_packets",
}

// String is the name that the API shows.
func (p Permission) String() string {
	if p < permissions {
		return permissionNames[p]
	}
	return fmt.Sprintf("permission(%d)", uint8(p))
}

// ParsePermission reads a permission's name.
func ParsePermission(s string) (Permission, error) {
	for i, name := range permissionNames {
		if name == s {
			return Permission(i), nil
		}
	}
	return 0, fmt.Errorf("%w: no permission is called %.40q", ErrInvalid, s)
}

// Permissions is a set of permissions; the zero value is empty.
type Permissions uint64

// All has every permission.
const All Permissions = 1<<permissions - 1

// Of is the set of the given permissions.
func Of(list ...Permission) Permissions {
	var s Permissions
	for _, p := range list {
		s |= 1 << p
	}
	return s
}

// Has reports whether the set has p.
func (s Permissions) Has(p Permission) bool { return s>>p&1 == 1 }

// Within reports whether every permission of s is in other too.
func (s Permissions) Within(other Permissions) bool { return s&^other == 0 }

// Names lists the set in the order of the constants; it is never nil.
func (s Permissions) Names() []string {
	names := make([]string, 0, bits.OnesCount64(uint64(s)))
	for p := range permissions {
		if s.Has(p) {
			names = append(names, p.String())
		}
	}
	return names
}

// MarshalJSON writes a list of names.
func (s Permissions) MarshalJSON() ([]byte, error) { return json.Marshal(s.Names()) }

// UnmarshalJSON reads a list of names.
func (s *Permissions) UnmarshalJSON(text []byte) error {
	var names []string
	if err := json.Unmarshal(text, &names); err != nil {
		return fmt.Errorf("permissions: %w", err)
	}
	*s = 0
	for _, name := range names {
		p, err := ParsePermission(name)
		if err != nil {
			return err
		}
		*s |= 1 << p
	}
	return nil
}

// The built-in roles.
const (
	Admin    = "admin"
	Operator = "operator"
	Viewer   = "viewer"
)

// viewer reads everything but the audit log; operator writes, and deletes
// nothing; admin may do all.
const (
	viewer = 1<<ViewSites | 1<<ViewPaths | 1<<ViewFlows | 1<<ViewPolicies | 1<<ViewMetrics | 1<<ViewConfig | 1<<ViewEvents

	operator = viewer | 1<<ManageSites | 1<<TestPaths | 1<<ManagePolicies | 1<<ManageAlerts | 1<<ManageConfig
)

// Role is a named set of permissions.
type Role struct {
	Name        string      `json:"name"`
	Permissions Permissions `json:"permissions"`
	BuiltIn     bool        `json:"built_in"`
}

// BuiltInRoles are the roles that cannot be changed.
func BuiltInRoles() []Role {
	return []Role{
		{Name: Admin, Permissions: All, BuiltIn: true},
		{Name: Operator, Permissions: operator, BuiltIn: true},
		{Name: Viewer, Permissions: viewer, BuiltIn: true},
	}
}

func builtIn(name string) (Role, bool) {
	for _, r := range BuiltInRoles() {
		if r.Name == name {
			return r, true
		}
	}
	return Role{}, false
}

// Scope limits a user to the sites that have all of its labels. The empty
// scope is the whole fabric.
type Scope map[string]string

// Sees reports whether a site with these labels is in the scope.
func (s Scope) Sees(labels map[string]string) bool {
	for k, v := range s {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}
