package collect

import (
	"cmp"
	"slices"
	"time"
)

// State is how a collector stands with its site.
type State string

// The states.
const (
	Waiting     State = "waiting"     // not tried yet
	Connecting  State = "connecting"  // or waiting for its turn to
	Queued      State = "queued"      // follows the tail; waits for its turn to backfill
	Backfilling State = "backfilling" // follows the tail, and pulls what is missing
	Live        State = "live"        // follows the tail; nothing is missing
	Away        State = "away"        // tried and failed; tried again after a while
)

// Site is how complete the history of one site is here. Records are counted by
// their number in the site's store.
type Site struct {
	Site    string `json:"site"`
	State   State  `json:"state"`
	Err     string `json:"error,omitempty"` // why it is away
	Node    string `json:"node,omitempty"`
	Epoch   uint64 `json:"epoch,omitempty"`
	Version string `json:"version,omitempty"`
	// SkewMS is the site's clock minus ours, give or take SkewErrorMS.
	SkewMS      int64     `json:"clock_skew_ms"`
	SkewErrorMS int64     `json:"clock_skew_error_ms"`
	SeenAt      time.Time `json:"seen_at,omitzero"`
	Head        uint64    `json:"head"` // the newest record that the site has
	// Complete is the first record from which on all are here up to the head; 0
	// if the newest is missing.
	Complete uint64 `json:"complete_from"`
	// Missing are the gaps, newest first; Damaged what the site cannot read or
	// this dashboard refused.
	Missing Ranges `json:"missing,omitempty"`
	Damaged Ranges `json:"damaged,omitempty"`
	// Before are the stores that the site had before, with what is lost of them.
	Before []Store `json:"before,omitempty"`
	// Records, Bytes and Ticks came since this process started.
	Records uint64 `json:"records"`
	Bytes   uint64 `json:"bytes"`
	Ticks   uint64 `json:"ticks"`

	have     Ranges
	seenHead uint64
}

// Gap is how many records are missing.
func (s *Site) Gap() uint64 { return s.Missing.Len() }

// Report is how complete the history of the fabric is here.
type Report struct {
	At    time.Time `json:"at"`
	Sites []Site    `json:"sites"` // by name
	// Have and Want are records: the backfill's progress over all sites that
	// were ever reached. Complete says that every site was, and nothing is
	// missing of any.
	Have     uint64 `json:"have"`
	Want     uint64 `json:"want"`
	Complete bool   `json:"complete"`
	// Unreached are the sites of which it is not known what is missing.
	Unreached []string `json:"unreached,omitempty"`
	// TicksLost is how many unsealed ticks were not kept; they come sealed.
	TicksLost uint64 `json:"ticks_lost"`
}

// Report is a picture of all collectors.
func (f *Fleet) Report() Report {
	f.mu.Lock()
	all := make([]*collector, 0, len(f.sites))
	for _, c := range f.sites {
		all = append(all, c)
	}
	f.mu.Unlock()
	r := Report{At: time.Now(), TicksLost: f.lost.Load(), Complete: true}
	for _, c := range all {
		s := c.report()
		r.Sites = append(r.Sites, s)
		if s.Node == "" {
			r.Unreached = append(r.Unreached, s.Site)
			r.Complete = false
			continue
		}
		r.Want += s.Head
		r.Have += s.Head - s.Gap()
		r.Complete = r.Complete && len(s.Missing) == 0
	}
	slices.SortFunc(r.Sites, func(a, b Site) int { return cmp.Compare(a.Site, b.Site) })
	slices.Sort(r.Unreached)
	return r
}

// Version is that of the program that answered last at a site, "" if none has
// since this process started.
func (f *Fleet) Version(site string) string {
	f.mu.Lock()
	c := f.sites[site]
	f.mu.Unlock()
	if c == nil {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status.Version
}

func (c *collector) report() Site {
	c.mu.Lock()
	s := c.status
	c.mu.Unlock()
	s.Head = max(s.Head, s.have.Last())
	if s.Head == 0 {
		return s
	}
	s.Missing = s.have.Missing(Range{1, s.Head})
	if len(s.have) > 0 && s.have.Last() == s.Head {
		s.Complete = s.have[len(s.have)-1].First
	}
	return s
}
