package configs

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Store keeps the two newest good revisions of one site in two plain files of
// one directory, so that an appliance comes up without a database and without
// anybody else. A revision is written over the older of the two, so whatever
// happens meanwhile the newer one stays.
//
// A Store is safe for concurrent use; one process at a time may have it open.
type Store struct {
	dir, fabric, site string

	mu    sync.Mutex
	roots []ed25519.PublicKey
	slots [2]slot
	// rejected is the newest revision that did not work; nil if there is none.
	rejected *Rejected
}

// slot is one of the two files; kept is nil if it holds nothing good.
type slot struct {
	kept   *Revision
	signed []byte
}

// slotNames are the files of the slots within the store's directory.
func slotName(i int) string { return [2]string{"revision-a", "revision-b"}[i] }

// OpenStore reads the store of a site in dir, which is made if it is not there
// (mode 0700). roots are the keys that the appliance trusts: its own, and that of
// the fabric that it has joined.
//
// What is damaged, or is not for this site and root, is left out and told in
// damage: the store opens with what is good, which may be nothing. err is for a
// directory that cannot be used at all.
func OpenStore(dir, fabric, site string, roots ...ed25519.PublicKey) (s *Store, damage, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("open revisions: %w", err)
	}
	s = &Store{dir: dir, fabric: fabric, site: site, roots: roots}
	var damaged []error
	for i := range s.slots {
		file := filepath.Join(dir, slotName(i))
		// Left by a crash before it got its name: never told as kept.
		if err := os.Remove(file + tempSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("open revisions: %w", err)
		}
		switch kept, err := s.read(file); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			damaged = append(damaged, fmt.Errorf("revision in %s left out: %w", file, err))
		default:
			s.slots[i] = kept
		}
	}
	if err := s.readRejected(); err != nil {
		damaged = append(damaged, err)
	}
	return s, errors.Join(damaged...), nil
}

func (s *Store) read(file string) (slot, error) {
	info, err := os.Stat(file)
	if err != nil {
		return slot{}, err
	}
	if info.Size() > maxRevision {
		return slot{}, ErrMalformed
	}
	signed, err := os.ReadFile(file)
	if err != nil {
		return slot{}, err
	}
	r, err := s.verify(signed)
	return slot{kept: r, signed: signed}, err
}

// verify checks the signature, whose the revision is, and that its body can
// be run.
func (s *Store) verify(signed []byte) (*Revision, error) {
	r, err := s.trusted(signed)
	switch {
	case err != nil:
		return nil, err
	case r.Fabric != s.fabric:
		return nil, fmt.Errorf("%w: %s", ErrFabric, r.Fabric)
	case r.Site != s.site:
		return nil, fmt.Errorf("%w: %s", ErrSite, r.Site)
	}
	if _, err := r.Config(); err != nil {
		return nil, err
	}
	return r, nil
}

// trusted verifies by whichever root has signed.
func (s *Store) trusted(signed []byte) (r *Revision, err error) {
	err = ErrSignature
	for _, root := range s.roots {
		r, err = Verify(signed, root)
		if !errors.Is(err, ErrSignature) && !errors.Is(err, ErrCertificate) {
			break
		}
	}
	return r, err
}

// Trust replaces the roots that new revisions are verified by. What is kept
// stays kept.
func (s *Store) Trust(roots ...ed25519.PublicKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roots = roots
}

// Current is the newest good revision, nil if there is none.
func (s *Store) Current() *Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slots[s.newest()].kept
}

// Previous is the good revision before the current one, nil if there is none.
func (s *Store) Previous() *Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slots[1-s.newest()].kept
}

// Signed is the current revision as it travels, nil if there is none. It is
// shared: do not change it.
func (s *Store) Signed() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slots[s.newest()].signed
}

func (s *Store) newest() int {
	a, b := s.slots[0].kept, s.slots[1].kept
	if b != nil && (a == nil || b.Compare(a) > 0) {
		return 1
	}
	return 0
}

// Save verifies a signed revision and keeps it, on disk when it returns. The
// current revision itself is accepted again without effect. Anything else that
// is not newer by (epoch, number) is refused with [ErrStale], the successor by
// number in the same epoch that was made from another revision with
// [ErrForked], and a revision of another site, fabric or root, or one that
// cannot be run, with its own error. A refused revision changes nothing.
func (s *Store) Save(signed []byte) (*Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.save(bytes.Clone(signed))
}

func (s *Store) save(signed []byte) (*Revision, error) {
	r, err := s.verify(signed)
	if err != nil {
		return nil, fmt.Errorf("keep revision: %w", err)
	}
	now := s.newest()
	if current := s.slots[now].kept; current != nil {
		switch {
		case r.Compare(current) == 0 && r.Hash() == current.Hash():
			return current, nil
		case r.Compare(current) <= 0:
			return nil, fmt.Errorf("keep revision %d of term %d: %w: have %d of term %d",
				r.Number, r.Epoch, ErrStale, current.Number, current.Epoch)
		case r.Epoch == current.Epoch && r.Number == current.Number+1 && r.PrevHash != current.Hash():
			return nil, fmt.Errorf("keep revision %d: %w", r.Number, ErrForked)
		}
		now = 1 - now
	}
	if err := ReplaceFile(filepath.Join(s.dir, slotName(now)), signed); err != nil {
		return nil, fmt.Errorf("keep revision %d: %w", r.Number, err)
	}
	s.slots[now] = slot{kept: r, signed: signed}
	return r, nil
}

// Issue makes the next revision from a configuration, signs it with the key
// that the appliance itself holds, and keeps it. If nothing has changed since
// the current revision it returns that one. key must be one of the store's roots.
func (s *Store) Issue(c *Config, key *RootKey, at time.Time) (*Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	epoch, number, prev := uint64(1), uint64(1), [sha256.Size]byte{}
	current := s.slots[s.newest()].kept
	if current != nil {
		epoch, number, prev = current.Epoch, current.Number+1, current.Hash()
	}
	r, err := NewRevision(c, epoch, number, at, prev)
	if err != nil {
		return nil, fmt.Errorf("issue revision %d: %w", number, err)
	}
	if current != nil && bytes.Equal(r.Body, current.Body) {
		return current, nil
	}
	signed, err := r.Sign(key)
	if err != nil {
		return nil, fmt.Errorf("issue revision %d: %w", number, err)
	}
	return s.save(signed)
}
