package appliance

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"

	"patronus/configs"
)

// Errors of the record of roles; errors.Is finds them in what [Roles] returns.
var (
	// ErrFenced is for a dashboard that is not the newest term's holder.
	ErrFenced = errors.New("another dashboard has taken over")
	// ErrNotDashboard is for a site that was never promoted, or was demoted.
	ErrNotDashboard = errors.New("site is not a dashboard")
	// ErrStaleTerm is for a statement that is not newer than what is known.
	ErrStaleTerm = errors.New("term is not newer than the one known")
	// ErrPin is for a site that shows another signing key than the one pinned.
	ErrPin = errors.New("site shows another signing key than before")
	// ErrSigner is for a statement signed by somebody who may not, or whom this
	// site has not met yet.
	ErrSigner = errors.New("term is not signed by a key known for its signer")
	// ErrForeign is for another fabric, or a site that is not in this one.
	ErrForeign = errors.New("not a site of this fabric")
)

// Roles is what one site knows about who is a dashboard: the newest signed
// statement about each site, and the signing keys of the sites it has met. It
// is kept in one plain file, on disk before anything is answered, so that a
// term once seen fences older ones after any restart.
//
// A site's signing key is pinned at the first contact over the overlay, where
// WireGuard has proved the sender's configured keys; the pin holds for as long
// as one of those keys is still configured. Certificates of a fabric root, once
// there are any, take the place of pins (DESIGN.md).
//
// Roles is safe for concurrent use.
type Roles struct {
	file, fabric, self string

	mu    sync.Mutex
	kept  rolesFile
	terms map[string]*configs.Term // verified, by site
	// sites are the fabric's, with the WireGuard keys that they prove themselves
	// with. Only they count; nil means that the configuration is not known yet.
	sites   map[string][]configs.Key
	changed chan struct{} // closed and replaced at each change
}

// rolesFile is the file: JSON, since a person may have to look at it.
type rolesFile struct {
	// Highest is the highest number of any statement that was ever accepted.
	Highest uint64 `json:"highest_term"`
	// Promoted is the highest number of any promotion: a demotion of its site
	// leaves nobody, not the dashboard before it.
	Promoted uint64            `json:"highest_promotion"`
	Terms    map[string][]byte `json:"terms,omitempty"` // by site, signed
	Pins     map[string]pin    `json:"pins,omitempty"`  // by site
}

// pin is a signing key, and the WireGuard keys that its owner proved when it
// was seen last.
type pin struct {
	Key       ed25519.PublicKey `json:"signing_key"`
	WireGuard []configs.Key     `json:"wireguard_keys"`
}

// OpenRoles reads the record of a site, which may not exist yet; an empty file
// name keeps nothing on disk. What is damaged is left out and told in damage;
// err is for a file that cannot be used at all.
func OpenRoles(file, fabric, self string) (r *Roles, damage, err error) {
	r = &Roles{file: file, fabric: fabric, self: self, terms: map[string]*configs.Term{}, changed: make(chan struct{})}
	defer func() {
		if r != nil && r.kept.Terms == nil {
			r.kept.Terms = map[string][]byte{}
		}
		if r != nil && r.kept.Pins == nil {
			r.kept.Pins = map[string]pin{}
		}
	}()
	if file == "" {
		return r, nil, nil
	}
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r, nil, nil
	case err != nil:
		return nil, nil, fmt.Errorf("open roles: %w", err)
	}
	if err := json.Unmarshal(text, &r.kept); err != nil {
		r.kept = rolesFile{}
		aside := file + ".damaged"
		return r, fmt.Errorf("roles set aside as %s: %w", aside, err), os.Rename(file, aside)
	}
	var damaged []error
	for site, signed := range r.kept.Terms {
		t, err := configs.ReadTerm(signed)
		if err == nil {
			t, err = configs.VerifyTerm(signed, r.kept.Pins[t.By].Key)
		}
		if err == nil && (t.Site != site || t.Fabric != fabric) {
			err = ErrForeign
		}
		if err != nil {
			damaged = append(damaged, fmt.Errorf("term of %q left out: %w", site, err))
			delete(r.kept.Terms, site)
			continue
		}
		r.terms[site] = t
		r.kept.note(t)
	}
	return r, errors.Join(damaged...), nil
}

// SetSites tells which sites are in the fabric, and with which WireGuard keys.
// Statements of others do not count while they are not in it.
func (r *Roles) SetSites(sites []configs.Site) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sites = make(map[string][]configs.Key, len(sites))
	for i := range sites {
		var keys []configs.Key
		for j := range sites[i].Uplinks {
			keys = append(keys, sites[i].Uplinks[j].PublicKey)
		}
		r.sites[sites[i].Name] = keys
	}
	r.tell()
}

// Pin notes the signing key that a site showed over the overlay, or that this
// appliance has itself. Another key than before is [ErrPin], unless every
// WireGuard key of the site has been replaced since: then it is another box.
func (r *Roles) Pin(site string, key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize {
		return fmt.Errorf("pin %s: not an Ed25519 key: %w", site, ErrPin)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	proved, ok := r.sites[site]
	if !ok {
		return fmt.Errorf("pin %q: %w", site, ErrForeign)
	}
	old, known := r.kept.Pins[site]
	same := known && old.Key.Equal(key)
	if same && slices.Equal(old.WireGuard, proved) {
		return nil
	}
	if known && !same && slices.ContainsFunc(old.WireGuard, func(k configs.Key) bool { return slices.Contains(proved, k) }) {
		return fmt.Errorf("pin %s: %w", site, ErrPin)
	}
	next := r.kept.clone()
	next.Pins[site] = pin{Key: bytes.Clone(key), WireGuard: slices.Clone(proved)}
	if known && !same {
		// What the old box signed can no longer be verified.
		for about, t := range r.terms {
			if t.By == site {
				delete(next.Terms, about)
			}
		}
	}
	if err := r.keep(next); err != nil {
		return fmt.Errorf("pin %s: %w", site, err)
	}
	for about, t := range r.terms {
		if t.By == site && next.Terms[about] == nil {
			delete(r.terms, about)
			r.tell()
		}
	}
	return nil
}

// Learn takes a signed statement, from anybody: what counts is its signature.
// It is on disk when Learn returns. A statement that is known already is no
// error; one that is older than what is known about its site is
// [ErrStaleTerm]. A promotion with a lower number than the holder's makes its
// site a standby.
func (r *Roles) Learn(signed []byte) (changed bool, err error) {
	t, err := configs.ReadTerm(signed)
	if err != nil {
		return false, fmt.Errorf("learn term: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if bytes.Equal(r.kept.Terms[t.Site], signed) {
		return false, nil
	}
	if err := r.check(t, signed); err != nil {
		return false, fmt.Errorf("learn term %d of %s: %w", t.Number, t.Site, err)
	}
	next := r.kept.clone()
	next.Terms[t.Site] = bytes.Clone(signed)
	next.note(t)
	if err := r.keep(next); err != nil {
		return false, fmt.Errorf("learn term %d of %s: %w", t.Number, t.Site, err)
	}
	r.terms[t.Site] = t
	r.tell()
	return true, nil
}

func (r *Roles) check(t *configs.Term, signed []byte) error {
	if t.Fabric != r.fabric {
		return ErrForeign
	}
	for _, name := range []string{t.Site, t.By} {
		if _, ok := r.sites[name]; !ok {
			return fmt.Errorf("%w: %s", ErrForeign, name)
		}
	}
	signer, ok := r.kept.Pins[t.By]
	if !ok {
		return fmt.Errorf("%w: %s is not known yet", ErrSigner, t.By)
	}
	if _, err := configs.VerifyTerm(signed, signer.Key); err != nil {
		return err
	}
	holder := r.holder()
	if t.By != t.Site && (holder == nil || holder.Site != t.By || !t.After(holder)) {
		return fmt.Errorf("%w: %s does not hold the term", ErrSigner, t.By)
	}
	if old := r.terms[t.Site]; old != nil && t.Number <= old.Number {
		return ErrStaleTerm
	}
	return nil
}

// holder is the newest promotion, if its site was not demoted since.
func (r *Roles) holder() *configs.Term {
	var newest *configs.Term
	for site, t := range r.terms {
		if _, ok := r.sites[site]; ok && t.Dashboard && t.Number >= r.kept.Promoted && (newest == nil || t.After(newest)) {
			newest = t
		}
	}
	return newest
}

// Holder is the dashboard that may commit configuration, and its term. Without
// one, ok is false: sites go on with what they have.
func (r *Roles) Holder() (site string, term uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.holder(); h != nil {
		return h.Site, h.Number, true
	}
	return "", 0, false
}

// Fence reports whether this site may commit configuration in a term: nil, or
// [ErrNotDashboard], or [ErrFenced] if another site or a newer term has it.
func (r *Roles) Fence(term uint64) error { return r.FenceSite(r.self, term) }

// FenceSite is [Roles.Fence] for any site: how a site judges who sends it a
// configuration.
func (r *Roles) FenceSite(site string, term uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.terms[site]; t == nil || !t.Dashboard {
		return fmt.Errorf("%s: %w", site, ErrNotDashboard)
	}
	if h := r.holder(); h == nil || h.Site != site || h.Number != term {
		return fmt.Errorf("term %d of %s: %w", term, site, ErrFenced)
	}
	return nil
}

// Dashboard reports whether a site is a dashboard: the holder of the term, or
// a standby that may collect history but commit nothing.
func (r *Roles) Dashboard(site string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.terms[site]
	_, ok := r.sites[site]
	return ok && t != nil && t.Dashboard
}

// Highest is the highest term seen; the next statement's is one more.
func (r *Roles) Highest() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kept.Highest
}

// Statements are the newest of each site, as they travel. They are shared: do
// not change them.
func (r *Roles) Statements() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Promotions before what was handed over in their term.
	order := slices.SortedFunc(maps.Values(r.terms), func(a, b *configs.Term) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Site, b.Site))
	})
	out := make([][]byte, len(order))
	for i, t := range order {
		out[i] = r.kept.Terms[t.Site]
	}
	return out
}

// Terms are the newest statements, by site.
func (r *Roles) Terms() []configs.Term {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []configs.Term
	for _, site := range slices.Sorted(maps.Keys(r.terms)) {
		out = append(out, *r.terms[site])
	}
	return out
}

// Changed is closed when anything has changed since it was called.
func (r *Roles) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

func (r *Roles) tell() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (f rolesFile) clone() rolesFile {
	return rolesFile{Highest: f.Highest, Promoted: f.Promoted, Terms: maps.Clone(f.Terms), Pins: maps.Clone(f.Pins)}
}

func (f *rolesFile) note(t *configs.Term) {
	f.Highest = max(f.Highest, t.Number)
	if t.Dashboard {
		f.Promoted = max(f.Promoted, t.Number)
	}
}

// keep writes the file, and only then believes what is in it.
func (r *Roles) keep(next rolesFile) error {
	if r.file != "" {
		text, err := json.MarshalIndent(next, "", "  ")
		if err != nil {
			return err
		}
		if err := configs.ReplaceFile(r.file, append(text, '\n')); err != nil {
			return err
		}
	}
	r.kept = next
	return nil
}
