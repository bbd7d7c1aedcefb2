package control

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"patronus/appliance/ledger"
	"patronus/configs"
	"patronus/dashboard/auth"
)

// Site is how a site is reached to be configured.
type Site interface {
	// Configuration is what the site runs.
	Configuration(ctx context.Context) (*configs.Config, error)
	// Apply gives the site a signed revision; nil is its acknowledgement.
	Apply(ctx context.Context, signed []byte) error
}

// Signer signs revisions in the term that this dashboard holds.
type Signer interface {
	// Term is the term, or an error if the role is not held (any more).
	Term() (uint64, error)
	Sign(r *configs.Revision) ([]byte, error)
}

// DistributorOptions are what a Distributor stands on.
type DistributorOptions struct {
	Plane  *Plane
	Ledger *ledger.Ledger
	Signer Signer
	// Self is the dashboard's own site: it is given a revision after the others,
	// since what it changes may cut the ways to them.
	Self string
	// Reach is the way to a site of the current configuration.
	Reach func(site string) Site
	Now   func() time.Time
	Log   *slog.Logger
}

const (
	// pushAtOnce bounds the sites that are given a revision at the same time.
	pushAtOnce = 32
	pushFor    = 10 * time.Second
	// retryFirst and retryMost are the back-off of a site that does not take its
	// revision; lookAgain is how often all sites are compared with what they
	// should run.
	retryFirst = time.Second
	retryMost  = 2 * time.Minute
	lookAgain  = 30 * time.Second
	// selfAfter is how long the dashboard's own site waits for the others.
	selfAfter = time.Second
)

// Progress is how far a site has got.
type Progress struct {
	Site string `json:"site"`
	// Revision is the newest that the site has acknowledged, 0 if none.
	Revision uint64    `json:"revision"`
	At       time.Time `json:"at,omitzero"`
	// Failed says why it has not taken a newer one.
	Failed string `json:"failed,omitempty"`
	// Rejected: the site has tried the revision and rolled it back by itself.
	Rejected bool `json:"rejected,omitempty"`
	// Unmanaged sites follow their own files: they have not joined.
	Unmanaged bool `json:"unmanaged,omitempty"`
}

// issued is what was signed for a site last. It is written before it is sent,
// so that no two revisions of a site have the same number.
type issued struct {
	Term, Number uint64
	At           time.Time
	Prev, Hash   [sha256.Size]byte
	Body         [sha256.Size]byte
	Acked        bool
	AckedAt      time.Time
}

func issuedKey(site string) string { return "issued/" + site }

// Distributor gives each site of the fabric the newest revision, and again
// until the site has acknowledged it. What a site alone must know (its ports,
// its key files) it asks the site itself for.
//
// A site is sent something at the begin of a term, which shows whether it has
// joined, and then only when its own configuration changes. A Distributor is safe
// for concurrent use.
type Distributor struct {
	o   DistributorOptions
	log *slog.Logger
	now func() time.Time

	mu       sync.Mutex
	progress map[string]*target
}

// target is what is known of a site, and when to try it again.
type target struct {
	Progress
	wait time.Duration
	next time.Time
}

// NewDistributor builds a distributor; Run makes it work.
func NewDistributor(o DistributorOptions) *Distributor {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Distributor{o: o, log: o.Log, now: o.Now, progress: map[string]*target{}}
}

// String names the task.
func (d *Distributor) String() string { return "distributor" }

// Run distributes until ctx ends.
func (d *Distributor) Run(ctx context.Context) error {
	var all time.Time // when all sites were compared last
	for {
		changed := d.o.Plane.Changed()
		whole := d.now().Sub(all) >= lookAgain
		if whole {
			all = d.now()
		}
		d.round(ctx, whole)
		if err := d.rest(ctx, changed, all); err != nil {
			return err
		}
	}
}

// rest waits until there is something to send.
func (d *Distributor) rest(ctx context.Context, changed <-chan struct{}, all time.Time) error {
	look := time.NewTicker(retryFirst)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			d.hurry()
			return nil
		case <-look.C:
			if d.due() || d.now().Sub(all) >= lookAgain {
				return nil
			}
		}
	}
}

// hurry forgets all back-offs: there is something new to send.
func (d *Distributor) hurry() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.progress {
		t.wait, t.next = 0, time.Time{}
	}
}

// due reports whether a site that failed is to be tried again.
func (d *Distributor) due() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	for _, t := range d.progress {
		if t.Failed != "" && !now.Before(t.next) {
			return true
		}
	}
	return false
}

// Progress is how far each site has got.
func (d *Distributor) Progress() map[string]Progress {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make(map[string]Progress, len(d.progress))
	for name, t := range d.progress {
		out[name] = t.Progress
	}
	return out
}

// round brings each site up to date that is due: all of them, or those that are
// behind.
func (d *Distributor) round(ctx context.Context, all bool) {
	st := d.o.Plane.Current()
	if st.Revision.Number == 0 {
		return
	}
	term, err := d.o.Signer.Term()
	if err != nil {
		return // a standby, or fenced: nothing is sent
	}
	var group errgroup.Group
	group.SetLimit(pushAtOnce + 1)
	var others sync.WaitGroup // pushes to other sites than our own
	now := d.now()
	names := make(map[string]bool, len(st.Network.Sites))
	for i := range st.Network.Sites {
		if st.Network.Sites[i].Pending() {
			continue // there is nobody to send it to
		}
		name := st.Network.Sites[i].Name
		names[name] = true
		d.mu.Lock()
		t := d.progress[name]
		if t == nil {
			t = &target{Progress: Progress{Site: name}}
			d.progress[name] = t
		}
		mine := d.o.Plane.For(name)
		number := mine.Revision.Number
		behind := t.Revision < number || t.Failed != ""
		skip := now.Before(t.next) || !behind && !all
		d.mu.Unlock()
		if skip {
			continue
		}
		if name != d.o.Self {
			others.Add(1)
		}
		group.Go(func() error {
			if name == d.o.Self {
				d.letOthersGo(ctx, &others)
			} else {
				defer others.Done()
			}
			err := d.push(ctx, name, mine, term)
			d.note(name, number, err)
			return d.report(ctx, name, number, err)
		})
	}
	if err := group.Wait(); err != nil {
		d.log.Error("a rejected revision is not in the audit log", "err", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range d.progress {
		if !names[name] {
			delete(d.progress, name)
		}
	}
}

// letOthersGo waits a moment for the pushes to other sites.
func (d *Distributor) letOthersGo(ctx context.Context, others *sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		others.Wait() // bounded: so is each push
	}()
	moment := time.NewTimer(selfAfter)
	defer moment.Stop()
	select {
	case <-ctx.Done():
	case <-done:
	case <-moment.C:
	}
}

// note keeps what became of a push.
func (d *Distributor) note(site string, number uint64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.progress[site]
	if t == nil {
		return
	}
	now := d.now()
	switch {
	case err == nil:
		t.Revision, t.At, t.Failed, t.Unmanaged, t.Rejected = max(t.Revision, number), now.UTC(), "", false, false
		t.wait, t.next = 0, time.Time{}
		return
	case errors.Is(err, context.Canceled):
		return
	case isUnjoined(err):
		t.Unmanaged = true
	}
	t.Rejected = strings.Contains(err.Error(), configs.ErrRejected.Error())
	if t.Failed != err.Error() {
		d.log.Warn("site has not taken the revision", "site", site, "rev", number, "err", err)
	}
	t.Failed = err.Error()
	t.wait = min(max(2*t.wait, retryFirst), retryMost)
	t.next = now.Add(t.wait + rand.N(t.wait/4+1))
}

// Holds reports whether this dashboard may sign: nil, or why not.
func (d *Distributor) Holds() error {
	_, err := d.o.Signer.Term()
	return err
}

// First is the newest revision for a site that cannot be reached yet, signed,
// as the network has the site. Pushes go on from it.
func (d *Distributor) First(ctx context.Context, site string) ([]byte, error) {
	term, err := d.o.Signer.Term()
	if err != nil {
		return nil, err
	}
	st := d.o.Plane.Current()
	want, err := st.Network.Config(site)
	if err != nil {
		return nil, err
	}
	body, err := want.Canonical()
	if err != nil {
		return nil, err
	}
	last, err := d.issued(site)
	if err != nil {
		return nil, err
	}
	signed, _, err := d.issue(ctx, site, want, st.Revision, term, last, sha256.Sum256(body))
	return signed, err
}

// report writes down, once, that a site has rolled a revision back.
func (d *Distributor) report(ctx context.Context, site string, number uint64, why error) error {
	if why == nil || !strings.Contains(why.Error(), configs.ErrRejected.Error()) {
		return nil
	}
	key := fmt.Sprintf("rejected/%020d/%s", number, site)
	return d.o.Ledger.Update(ctx, func(tx *ledger.Tx) error {
		if _, err := tx.Get(key); !errors.Is(err, ledger.ErrNotFound) {
			return err
		}
		text, err := json.Marshal(why.Error())
		if err != nil {
			return err
		}
		if err := tx.Put(key, text); err != nil {
			return err
		}
		return tx.Audit(ledger.AuditRecord{
			At: d.now().UTC(), User: "system", Action: "revision_rejected", ResourceType: "site", ResourceID: site,
			After: text, Outcome: "failed",
		})
	})
}

// push makes sure that a site runs what it should.
func (d *Distributor) push(ctx context.Context, site string, st *State, term uint64) error {
	ctx, cancel := context.WithTimeout(ctx, pushFor)
	defer cancel()
	way := d.o.Reach(site)
	running, err := way.Configuration(ctx)
	if err != nil {
		return err
	}
	want, err := SiteConfig(st.Network, running)
	if err != nil {
		return err
	}
	body, err := want.Canonical()
	if err != nil {
		return err
	}
	last, err := d.issued(site)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	if last != nil && last.Term == term && last.Acked && last.Body == sum {
		now, err := running.Canonical()
		if err != nil {
			return err
		}
		if bytes.Equal(now, body) {
			return nil
		}
	}
	signed, next, err := d.issue(ctx, site, want, st.Revision, term, last, sum)
	if err != nil {
		return err
	}
	if err := way.Apply(ctx, signed); err != nil {
		return err
	}
	if err := d.acked(ctx, site, next); err != nil {
		return err
	}
	return d.adopt(ctx, site, running)
}

// adopt makes a site managed that has taken a revision: it has joined.
func (d *Distributor) adopt(ctx context.Context, site string, running *configs.Config) error {
	if s := d.o.Plane.Current().Network.Site(site); s == nil || s.Managed {
		return nil
	}
	_, err := d.o.Plane.Commit(ctx, auth.Actor{User: "system"}, Change{
		Action: "adopt_site", Kind: "site", ID: site, System: true,
		Edit: func(n *configs.Network) error { return n.Adopt(running) },
	})
	if errors.Is(err, ErrUnchanged) {
		return nil
	}
	return err
}

// SiteConfig is the fabric's configuration as one site is to run it: what all
// share is the fabric's, what concerns the site alone is as the site has it.
func SiteConfig(network *configs.Network, running *configs.Config) (*configs.Config, error) {
	n := *network
	n.Sites = slices.Clone(network.Sites) // Adopt changes one, and only its fields
	if err := n.Adopt(running); err != nil {
		return nil, err
	}
	return n.Config(running.Site)
}

func (d *Distributor) issued(site string) (*issued, error) {
	var last *issued
	err := d.o.Ledger.View(func(tx *ledger.Tx) error {
		text, err := tx.Get(issuedKey(site))
		if errors.Is(err, ledger.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		last = &issued{}
		return json.Unmarshal(text, last)
	})
	if err != nil {
		return nil, fmt.Errorf("what was issued to %s: %w", site, err)
	}
	return last, nil
}

// issue signs a revision for a site, or the last one again if it is the same.
func (d *Distributor) issue(ctx context.Context, site string, want *configs.Config, rev Revision, term uint64, last *issued, sum [sha256.Size]byte) ([]byte, *issued, error) {
	next := last
	if last == nil || last.Term != term || last.Body != sum {
		next = &issued{Term: term, Number: rev.Number, At: d.now().UTC(), Body: sum}
		if last != nil && last.Term == term {
			// A site may be given several of one revision: its own part can change.
			next.Number, next.Prev = max(rev.Number, last.Number+1), last.Hash
		}
	}
	r, err := configs.NewRevision(want, next.Term, next.Number, next.At, next.Prev)
	if err != nil {
		return nil, nil, err
	}
	next.Hash = r.Hash()
	if next != last {
		if err := d.keep(ctx, site, next); err != nil {
			return nil, nil, err
		}
	}
	signed, err := d.o.Signer.Sign(r)
	return signed, next, err
}

func (d *Distributor) keep(ctx context.Context, site string, i *issued) error {
	text, err := json.Marshal(i)
	if err != nil {
		return err
	}
	return d.o.Ledger.Update(ctx, func(tx *ledger.Tx) error { return tx.Put(issuedKey(site), text) })
}

// acked notes that a site runs what was issued to it.
func (d *Distributor) acked(ctx context.Context, site string, i *issued) error {
	if i == nil || i.Acked {
		return nil
	}
	done := *i
	done.Acked, done.AckedAt = true, d.now().UTC()
	return d.keep(ctx, site, &done)
}

// isUnjoined reports whether a site refused because it trusts another root. The
// refusal comes as text from afar.
func isUnjoined(err error) bool {
	return strings.Contains(err.Error(), configs.ErrCertificate.Error()) || strings.Contains(err.Error(), configs.ErrSignature.Error())
}
