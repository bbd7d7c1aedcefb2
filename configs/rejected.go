package configs

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// ErrRejected is for a revision that the site has tried, and rolled back.
var ErrRejected = errors.New("revision was tried here and rolled back")

// Rejected is a revision that did not work at its site.
type Rejected struct {
	Epoch  uint64            `json:"term"`
	Number uint64            `json:"revision"`
	Hash   [sha256.Size]byte `json:"hash"`
	Why    string            `json:"why"`
	At     time.Time         `json:"at"`
}

func (s *Store) rejectedFile() string { return filepath.Join(s.dir, "rejected") }

// Reject marks a revision as bad, on disk when it returns: it is refused from
// now on, until another one was marked.
func (s *Store) Reject(r *Revision, why string, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	bad := &Rejected{Epoch: r.Epoch, Number: r.Number, Hash: r.Hash(), Why: why, At: at.UTC()}
	text, err := json.MarshalIndent(bad, "", "  ")
	if err != nil {
		return fmt.Errorf("reject revision %d: %w", r.Number, err)
	}
	if err := ReplaceFile(s.rejectedFile(), append(text, '\n')); err != nil {
		return fmt.Errorf("reject revision %d: %w", r.Number, err)
	}
	s.rejected = bad
	return nil
}

// Rejected is the newest revision that was marked as bad, nil if there is none.
func (s *Store) Rejected() *Rejected {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rejected
}

// readRejected reads the mark. What is damaged is forgotten: the revision will
// be tried again, and marked again.
func (s *Store) readRejected() error {
	text, err := os.ReadFile(s.rejectedFile())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	var bad Rejected
	if err := json.Unmarshal(text, &bad); err != nil {
		return fmt.Errorf("%s left out: %w", s.rejectedFile(), err)
	}
	s.rejected = &bad
	return nil
}

// refuse is the error of a revision that is marked as bad. mu is held.
func (s *Store) refuse(r *Revision) error {
	if s.rejected == nil || s.rejected.Hash != r.Hash() {
		return nil
	}
	return fmt.Errorf("revision %d of term %d: %w: %s", r.Number, r.Epoch, ErrRejected, s.rejected.Why)
}
