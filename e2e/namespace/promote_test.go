package namespace

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patronus/appliance"
	"patronus/dashboard/collect"
)

// The real processes: the node keeps its history as its own confined user, is
// promoted by whoever can read the appliance's key, collects from the other
// site through both edges, and is still the dashboard after it was killed.
func TestPromote(t *testing.T) {
	w := newWorld(t, plan{})
	a, b := w.site("a"), w.site("b")
	node := func(s *site) *appliance.NodeStatus {
		st, err := appliance.NewNodeClient(appliance.NodeSocket(s.dataDir())).Status(t.Context())
		if err != nil {
			return &appliance.NodeStatus{}
		}
		return st
	}
	for _, s := range []*site{a, b} {
		eventually(t, 20*time.Second, s.name+" keeps history", func() error {
			if st := node(s); !st.History.Open || st.History.Stats.Samples == 0 {
				return fmt.Errorf("%+v", st.History)
			}
			return nil
		})
	}
	plan := sh(t, program(), "promote", "--dry-run", "--data-dir", a.dataDir())
	if !strings.Contains(plan, "a would become the dashboard, in term 2") {
		t.Errorf("the plan: %s", plan)
	}
	var report collect.Report
	if err := json.Unmarshal([]byte(sh(t, program(), "promote", "--output", "json", "--data-dir", a.dataDir())), &report); err != nil || !report.Complete {
		t.Errorf("%+v, %v", report, err)
	}
	eventually(t, 10*time.Second, "b knows", func() error {
		if r := node(b).Role; r.Holder != "a" || r.Term != 2 {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	a.kill("node")
	eventually(t, 20*time.Second, "a collects again", func() error {
		if st := node(a); st.Role.Role != appliance.RoleDashboard || !st.Dashboard.Open || st.Dashboard.Stats.Samples == 0 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	// Without the key there is no promotion.
	out, err := exec.Command(program(), "promote", "--data-dir", filepath.Join(t.TempDir(), "other")).CombinedOutput()
	if err == nil {
		t.Errorf("promoted nobody: %s", out)
	}
	out, err = exec.Command(program(), "demote", "--data-dir", a.dataDir()).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	eventually(t, 10*time.Second, "b knows that nobody is", func() error {
		if r := node(b).Role; r.Holder != "" || r.Highest != 3 {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
}
