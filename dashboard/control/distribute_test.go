package control

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"patronus/appliance/ledger"
	"patronus/configs"
	"patronus/dashboard/auth"
)

// box is a site with a real store of revisions.
type box struct {
	mu      sync.Mutex
	store   *configs.Store
	running *configs.Config
	applied int
	away    bool
	refuses error // what it answers to every revision
}

var errAway = errors.New("no route to host")

func (b *box) Configuration(context.Context) (*configs.Config, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away {
		return nil, errAway
	}
	return b.running, nil
}

func (b *box) Apply(_ context.Context, signed []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away {
		return errAway
	}
	if b.refuses != nil {
		return fmt.Errorf("%s", b.refuses) // as text, like over the wire
	}
	rev, err := b.store.Save(signed)
	if err != nil {
		return fmt.Errorf("%s", err) // as text, like over the wire
	}
	b.running, err = rev.Config()
	b.applied++
	return err
}

func (b *box) namespaces() []configs.Namespace {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.running.Namespaces
}

// pen signs as the controller of a term.
type pen struct {
	root, key *configs.RootKey
	term      uint64
	err       error
}

func (p *pen) Term() (uint64, error) { return p.term, p.err }

func (p *pen) Sign(r *configs.Revision) ([]byte, error) {
	c := configs.Controller{Fabric: "acme", Site: "hq", Term: p.term, Key: p.key.Public(), IssuedAt: time.Unix(1, 0)}
	certificate, err := p.root.Certify(c)
	if err != nil {
		return nil, err
	}
	return r.SignDelegated(p.key, certificate)
}

type world struct {
	*Distributor
	plane *Plane
	pen   *pen
	boxes map[string]*box
	clock time.Time
}

func siteOf(n byte, name string) configs.Site {
	return configs.Site{
		Name: name, Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, n}), 16)},
		Uplinks: []configs.Uplink{{Name: "wan0", PublicKey: configs.Key{n, 7}, Endpoints: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, n}), 51820)}}},
	}
}

// newWorld is a fabric whose sites have joined the root of hq, but for those
// named strangers.
func newWorld(t *testing.T, names []string, strangers ...string) *world {
	t.Helper()
	l, err := ledger.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{boxes: map[string]*box{}, clock: time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC)}
	w.pen = &pen{root: configs.GenerateRootKey(), key: configs.GenerateRootKey(), term: 2}
	var sites []configs.Site
	for i, name := range names {
		sites = append(sites, siteOf(byte(i+1), name))
	}
	for i, name := range names {
		own := append([]configs.Site(nil), sites...)
		own[i].Uplinks = append([]configs.Uplink(nil), own[i].Uplinks...)
		own[i].Uplinks[0].PrivateKeyFile = "/keys/" + name
		c, err := configs.New(configs.Config{
			Fabric: "acme", Site: name, DataDir: "/data/" + name, Sites: own,
			LAN: []configs.LANPort{{Name: "lan0", Kind: configs.LANCable, Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i + 1), 0, 1}), 24)}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		root := configs.GenerateRootKey()
		roots := []ed25519.PublicKey{root.Public()}
		if !slices.Contains(strangers, name) {
			roots = append(roots, w.pen.root.Public())
		}
		store, _, err := configs.OpenStore(t.TempDir(), "acme", name, roots...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.Issue(c, root, w.clock); err != nil {
			t.Fatal(err)
		}
		w.boxes[name] = &box{store: store, running: c}
	}
	now := func() time.Time { return w.clock }
	if w.plane, err = Open(t.Context(), l, configs.FromConfig(w.boxes["hq"].running), now); err != nil {
		t.Fatal(err)
	}
	w.Distributor = NewDistributor(DistributorOptions{
		Plane: w.plane, Ledger: l, Signer: w.pen, Now: now, Reach: func(site string) Site { return w.boxes[site] },
	})
	return w
}

// change makes a change that every site sees.
func (w *world) change(t *testing.T, name string) uint64 {
	t.Helper()
	w.clock = w.clock.Add(time.Second)
	rev, err := w.plane.Commit(t.Context(), auth.Actor{User: "alice"}, Change{
		Action: "create_namespace", Kind: "namespace", ID: name,
		Edit: func(n *configs.Network) error {
			n.Namespaces = append(n.Namespaces, configs.Namespace{Name: name})
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return rev.Number
}

func TestDistribute(t *testing.T) {
	w := newWorld(t, []string{"hq", "east", "west"})
	ctx := t.Context()
	w.round(ctx, true)
	for name, b := range w.boxes {
		if b.applied != 1 || !w.plane.Current().Network.Site(name).Managed {
			t.Errorf("%s was not adopted at the begin: %d", name, b.applied)
		}
		b.applied = 0
	}
	w.round(ctx, true)
	n := w.change(t, "one")
	w.round(ctx, false)
	for name, b := range w.boxes {
		if p := w.Progress()[name]; b.applied != 1 || len(b.running.Namespaces) != 1 || p.Revision != n || p.Failed != "" {
			t.Errorf("%s applied %d, %+v", name, b.applied, p)
		}
		if b.running.DataDir != "/data/"+name || b.running.Self().Uplinks[0].PrivateKeyFile != "/keys/"+name || len(b.running.LAN) != 1 {
			t.Errorf("%s lost what is its own: %+v", name, b.running)
		}
	}
	// Again, and after a restart of the dashboard: nothing to do.
	w.round(ctx, true)
	again := NewDistributor(w.o)
	again.round(ctx, true)
	for name, b := range w.boxes {
		if b.applied != 1 || again.Progress()[name].Revision != n {
			t.Errorf("%s applied %d, %+v", name, b.applied, again.Progress()[name])
		}
	}
}

// A site that was away gets the newest when it is back; the others do not wait.
func TestDistributeToOneThatWasAway(t *testing.T) {
	w := newWorld(t, []string{"hq", "east", "west"})
	ctx := t.Context()
	east := w.boxes["east"]
	east.away = true
	w.change(t, "one")
	w.round(ctx, false)
	n := w.change(t, "two")
	w.round(ctx, false)
	if p := w.Progress(); p["west"].Revision != n || p["hq"].Revision != n || p["east"].Revision != 0 || !strings.Contains(p["east"].Failed, "no route") {
		t.Errorf("%+v", p)
	}
	east.away = false
	w.round(ctx, false)
	if east.applied != 0 {
		t.Error("tried again before its time")
	}
	w.clock = w.clock.Add(retryMost + retryMost/2)
	if !w.due() {
		t.Error("not due")
	}
	w.round(ctx, false)
	if p := w.Progress()["east"]; east.applied != 1 || len(east.running.Namespaces) != 2 || p.Revision != n || p.Failed != "" {
		t.Errorf("applied %d, %+v", east.applied, p)
	}
}

// A crash between signing and sending signs the same revision again, not
// another one of the same number.
func TestDistributeAfterACrash(t *testing.T) {
	w := newWorld(t, []string{"hq", "east"})
	ctx := t.Context()
	east := w.boxes["east"]
	w.change(t, "one")
	st := w.plane.Current()
	want, err := SiteConfig(st.Network, east.running)
	if err != nil {
		t.Fatal(err)
	}
	body, err := want.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	first, one, err := w.issue(ctx, "east", want, st.Revision, 2, nil, sha256.Sum256(body))
	if err != nil {
		t.Fatal(err)
	}
	last, err := w.issued("east")
	if err != nil {
		t.Fatal(err)
	}
	w.clock = w.clock.Add(time.Hour)
	second, two, err := w.issue(ctx, "east", want, st.Revision, 2, last, sha256.Sum256(body))
	if err != nil || string(first) != string(second) || one.Number != two.Number {
		t.Errorf("signed twice: %+v, %+v, %v", one, two, err)
	}
	w.round(ctx, false)
	if east.applied != 1 || east.store.Current().Hash() != one.Hash {
		t.Errorf("east runs %+v", east.store.Current())
	}
}

func TestDistributeNeedsTheTerm(t *testing.T) {
	w := newWorld(t, []string{"hq", "east"})
	ctx := t.Context()
	n := w.change(t, "one")
	w.pen.err = errors.New("another dashboard has taken over")
	w.round(ctx, true)
	if len(w.Progress()) != 0 || w.boxes["east"].applied != 0 {
		t.Error("a fenced dashboard has sent something")
	}
	// The new one begins to count again, in a newer term.
	w.pen.err, w.pen.term = nil, 9
	w.round(ctx, true)
	cur := w.boxes["east"].store.Current()
	if cur.Epoch != 9 || w.Progress()["east"].Revision != n {
		t.Errorf("east runs %+v", cur)
	}
	// What the old one still sends is refused, and says so.
	w.pen.term = 2
	w.change(t, "two")
	w.round(ctx, true)
	if p := w.Progress()["east"]; !strings.Contains(p.Failed, configs.ErrStale.Error()) || w.boxes["east"].store.Current().Epoch != 9 {
		t.Errorf("%+v", p)
	}
}

func TestDistributeToAStranger(t *testing.T) {
	w := newWorld(t, []string{"hq", "east"}, "east")
	n := w.change(t, "one")
	w.round(t.Context(), true)
	if p := w.Progress(); p["hq"].Revision != n || !p["east"].Unmanaged || w.boxes["east"].applied != 0 {
		t.Errorf("%+v", p)
	}
	w.boxes["east"].store.Trust(w.pen.root.Public())
	w.clock = w.clock.Add(time.Hour)
	w.round(t.Context(), true)
	if p := w.Progress()["east"]; p.Unmanaged || p.Revision != n {
		t.Errorf("after it joined: %+v", p)
	}
}

// Run sends what is committed at once, and ends.
func TestDistributorRuns(t *testing.T) {
	w := newWorld(t, []string{"hq", "east"})
	w.Distributor.now = time.Now
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	w.change(t, "one")
	for w.Progress()["east"].Revision != w.plane.Current().Revision.Number || len(w.boxes["east"].namespaces()) != 1 {
		select {
		case <-ctx.Done():
			t.Fatalf("%+v", w.Progress())
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
