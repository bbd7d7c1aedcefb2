package configs

import "fmt"

// Check verifies a signed revision as [Store.Save] does, without keeping it:
// whoever runs it first wants to see it work.
func (s *Store) Check(signed []byte) (*Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.verify(signed)
	if err != nil {
		return nil, fmt.Errorf("check revision: %w", err)
	}
	if err := s.refuse(r); err != nil {
		return nil, err
	}
	if current := s.slots[s.newest()].kept; current != nil && r.Compare(current) < 0 {
		return nil, fmt.Errorf("check revision %d of term %d: %w: have %d of term %d",
			r.Number, r.Epoch, ErrStale, current.Number, current.Epoch)
	}
	return r, nil
}
