package auth

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"patronus/appliance/ledger"
)

// Roles are all roles, the built-in ones first.
func (d *Directory) Roles() []Role {
	d.mu.RLock()
	defer d.mu.RUnlock()
	list := BuiltInRoles()
	for _, r := range d.roles {
		list = append(list, r)
	}
	slices.SortFunc(list[len(BuiltInRoles()):], func(a, b Role) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// Role is one role, or [ErrNotFound].
func (d *Directory) Role(name string) (Role, error) {
	if r, ok := builtIn(name); ok {
		return r, nil
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	r, ok := d.roles[name]
	if !ok {
		return Role{}, fmt.Errorf("role %q: %w", name, ErrNotFound)
	}
	return r, nil
}

// PutRole makes a role (create) or changes one. Its users have the new
// permissions from their next request on.
func (d *Directory) PutRole(ctx context.Context, by Actor, r Role, create bool) (Role, error) {
	if err := checkName("name", r.Name); err != nil {
		return Role{}, err
	}
	if _, ok := builtIn(r.Name); ok {
		return Role{}, &ValueError{"name", "is a built-in role, which cannot be changed"}
	}
	r.BuiltIn = false
	d.write.Lock()
	defer d.write.Unlock()
	d.mu.RLock()
	before, exists := d.roles[r.Name]
	d.mu.RUnlock()
	switch {
	case !r.Permissions.Within(by.Permissions) || !before.Permissions.Within(by.Permissions):
		return Role{}, fmt.Errorf("the role has permissions that you do not have: %w", ErrForbidden)
	case create && exists:
		return Role{}, fmt.Errorf("role %q: %w", r.Name, ErrExists)
	case !create && !exists:
		return Role{}, fmt.Errorf("role %q: %w", r.Name, ErrNotFound)
	}
	if err := d.writeRole(ctx, by, r.Name, &r); err != nil {
		return Role{}, err
	}
	return r, nil
}

// DeleteRole removes a role that nobody has.
func (d *Directory) DeleteRole(ctx context.Context, by Actor, name string) error {
	d.write.Lock()
	defer d.write.Unlock()
	d.mu.RLock()
	_, exists := d.roles[name]
	used := ""
	for _, u := range d.users {
		if u.Role == name {
			used = u.Name
		}
	}
	d.mu.RUnlock()
	switch _, fixed := builtIn(name); {
	case fixed:
		return &ValueError{"name", "is a built-in role, which cannot be deleted"}
	case !exists:
		return fmt.Errorf("role %q: %w", name, ErrNotFound)
	case used != "":
		return &ValueError{"name", "user " + used + " has this role"}
	}
	return d.writeRole(ctx, by, name, nil)
}

// writeRole makes r the role of a name, or removes it. write is held.
func (d *Directory) writeRole(ctx context.Context, by Actor, name string, r *Role) error {
	d.mu.RLock()
	var before, after any
	if old, ok := d.roles[name]; ok {
		before = old
	}
	d.mu.RUnlock()
	action := "delete_role"
	if r != nil {
		after, action = *r, "update_role"
		if before == nil {
			action = "create_role"
		}
		if err := d.keepsAdmin(*r); err != nil {
			return err
		}
	}
	err := d.ledger.Update(ctx, func(tx *ledger.Tx) error {
		err := tx.Delete(roleKey(name))
		if r != nil {
			err = put(tx, roleKey(name), *r)
		}
		if err != nil {
			return err
		}
		return tx.Audit(d.record(by, action, "role", name, before, after))
	})
	if err != nil {
		return fmt.Errorf("write role: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r == nil {
		delete(d.roles, name)
		return nil
	}
	d.roles[name] = *r
	return nil
}

// keepsAdmin refuses to take the right to manage users from the last who has it.
func (d *Directory) keepsAdmin(r Role) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, u := range d.users {
		p := d.permissions(u.Role)
		if u.Role == r.Name {
			p = r.Permissions
		}
		if !u.Disabled && len(u.Scope) == 0 && p.Has(ManageUsers) {
			return nil
		}
	}
	return &ValueError{"permissions", "nobody would be left who may manage users"}
}
