package collect

import (
	"encoding/json"
	"fmt"
)

// cursor is what is known of the records of one site's store. It is kept in
// the same transaction as the records, as JSON: a person may have to look at it.
type cursor struct {
	Version int    `json:"version"`
	Node    string `json:"node"`
	Epoch   uint64 `json:"epoch"`
	// Have are the records that are here, that the site does not have any more,
	// or that it cannot read.
	Have Ranges `json:"have"`
	// Damaged are those of Have that the site cannot read, or that were refused
	// here; they are not asked for again.
	Damaged Ranges `json:"damaged,omitempty"`
	// Before are the stores that the site had before this one, newest first.
	Before []Store `json:"before,omitempty"`
}

// Store is a store that a site had and that is no more: what was not pulled
// from it in time is lost.
type Store struct {
	Node    string `json:"node"`
	Epoch   uint64 `json:"epoch"`
	Have    uint64 `json:"have"` // records
	Missing Ranges `json:"missing,omitempty"`
}

const (
	cursorVersion = 1
	// storesKept bounds what is told of earlier stores.
	storesKept = 8
)

// readCursor reads what [cursor.encode] wrote. Without one, and with one that
// cannot be read, everything is pulled again: that costs time and nothing else.
func readCursor(text []byte) (cursor, error) {
	if len(text) == 0 {
		return cursor{Version: cursorVersion}, nil
	}
	var c cursor
	err := json.Unmarshal(text, &c)
	if err == nil && (c.Version != cursorVersion || !c.Have.valid() || !c.Damaged.valid()) {
		err = fmt.Errorf("version %d, or ranges out of order", c.Version)
	}
	if err != nil {
		return cursor{Version: cursorVersion}, fmt.Errorf("cursor: %w", err)
	}
	return c, nil
}

func (c *cursor) encode() ([]byte, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("cursor: %w", err)
	}
	return text, nil
}

// meet is the cursor for a store that a site shows: its own if it is the store
// that it tells of, otherwise one that has nothing yet and remembers the other.
// head is the newest record that the other store is known to have had.
func (c cursor) meet(node string, epoch, head, nowHead uint64) (next cursor, rebuilt bool) {
	// A store that has fewer records than were seen of it was set back, and
	// gives the same numbers to others.
	if c.Node == node && c.Epoch == epoch && nowHead >= c.Have.Last() {
		return c, false
	}
	next = cursor{Version: cursorVersion, Node: node, Epoch: epoch, Before: c.Before}
	if c.Node == "" {
		return next, false
	}
	old := Store{Node: c.Node, Epoch: c.Epoch, Have: c.Have.Len() - c.Damaged.Len()}
	if head = max(head, c.Have.Last()); head > 0 {
		old.Missing = c.Have.Missing(Range{1, head})
	}
	next.Before = append([]Store{old}, c.Before...)
	next.Before = next.Before[:min(len(next.Before), storesKept)]
	return next, true
}
