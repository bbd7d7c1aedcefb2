package control

import (
	"fmt"
	"testing"
	"time"

	"patronus/appliance/ledger"
	"patronus/configs"
)

// What a site has rolled back is known as bad and written down once; the next
// good revision clears it.
func TestRejectedRevisionsAreReported(t *testing.T) {
	w := newWorld(t, []string{"hq", "east", "west"})
	w.round(t.Context(), true)
	n := w.change(t, "blue")
	w.boxes["east"].refuses = fmt.Errorf("edge refused: revision %d of term 2: %w: dashboard hq is not reached", n, configs.ErrRejected)
	for range 3 {
		w.round(t.Context(), true)
		w.clock = w.clock.Add(10 * time.Minute)
	}
	if p := w.Progress()["east"]; !p.Rejected || p.Revision >= n {
		t.Errorf("%+v", p)
	}
	if p := w.Progress()["west"]; p.Rejected || p.Revision != n {
		t.Errorf("%+v", p)
	}
	records, err := w.o.Ledger.Audits(ledger.AuditFilter{Action: "revision_rejected"}, 0, 10)
	if err != nil || len(records) != 1 || records[0].ResourceID != "east" || records[0].Outcome != "failed" {
		t.Errorf("%+v %v", records, err)
	}
	w.boxes["east"].refuses = nil
	n = w.change(t, "green")
	w.hurry()
	w.round(t.Context(), true)
	if p := w.Progress()["east"]; p.Rejected || p.Revision != n {
		t.Errorf("after the next one: %+v", p)
	}
}
