package fabric

import (
	"context"
	"testing"
	"time"

	"patronus/appliance"
	"patronus/appliance/lab"
	"patronus/appliance/store"
	"patronus/dashboard/collect"
)

// withHistory runs three appliances, each with an edge and a node.
func withHistory(t *testing.T) *lab.Fabric {
	t.Helper()
	f, err := lab.New(lab.Options{Sites: 3, Seed: 1, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	until(t, "all paths up", 30*time.Second, func() bool { return allUp(t, f) })
	return f
}

// report is a dashboard's progress, or an empty one.
func report(t *testing.T, s *lab.Site) collect.Report {
	r, err := s.NodeClient.Progress(t.Context())
	if err != nil {
		return collect.Report{}
	}
	return *r
}

// series are the paths of a site that a dashboard has samples of.
func series(s *lab.Site, of string) map[store.Series]int64 {
	out := map[store.Series]int64{}
	n := s.Node()
	if n == nil {
		return out
	}
	if st, ok := n.Collected(); ok {
		for _, v := range st.Last() {
			if v.Site == of {
				out[v.Series] = v.At
			}
		}
	}
	return out
}

// Promote hq: the history of east and west arrives. hq's node dies: traffic
// does not notice. Promote east: nothing is lost. hq returns, and is fenced.
func TestPromote(t *testing.T) {
	f := withHistory(t)
	hq, east, west := f.Sites[0], f.Sites[1], f.Sites[2]
	ctx := t.Context()
	until(t, "a few ticks everywhere", 30*time.Second, func() bool {
		for _, s := range f.Sites {
			st, ok := s.Node().Store()
			if !ok || len(st.Last()) < 8 || st.Head() == 0 {
				return false
			}
		}
		return true
	})
	if reach, err := hq.NodeClient.Survey(ctx); err != nil || len(reach) != 3 || reach[1].Err != "" || reach[1].Records == 0 {
		t.Fatalf("%+v, %v", reach, err)
	}
	if err := hq.Promote(ctx, true); err != nil {
		t.Fatal(err)
	}
	took := until(t, "hq has everything", 30*time.Second, func() bool {
		return report(t, hq).Complete && len(series(hq, "hq")) == 8 && len(series(hq, "east")) == 8 && len(series(hq, "west")) == 8
	})
	t.Logf("hq promoted: complete and live after %v", took)
	for _, s := range f.Sites {
		until(t, s.Name+" knows", 10*time.Second, func() bool {
			role, err := s.NodeClient.Role(ctx)
			return err == nil && role.Holder == "hq" && role.Term == 2
		})
	}
	if err := hq.Node().Roles().Fence(2); err != nil {
		t.Error(err)
	}

	hq.KillNode()
	before, err := hq.Client.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := east.Promote(ctx, true); err != nil {
		t.Fatal(err)
	}
	until(t, "east has what can be had", 30*time.Second, func() bool {
		return len(series(east, "east")) == 8 && len(series(east, "west")) == 8
	})
	if r := report(t, east); r.Complete || len(r.Sites) != 3 || r.Sites[1].Site != "hq" || r.Sites[1].Node != "" {
		t.Errorf("hq's node is dead, and east says %+v", r)
	}
	after, err := hq.Client.Status(ctx)
	if err != nil || after.Counters.FromWAN.Dropped["no_session"] != before.Counters.FromWAN.Dropped["no_session"] {
		t.Errorf("hq's edge noticed: %v", err)
	}

	hq.ReviveNode()
	took = until(t, "east has hq's history too", 60*time.Second, func() bool { return report(t, east).Complete && len(series(east, "hq")) == 8 })
	t.Logf("east promoted: complete %v after hq's node returned", took)
	// What hq's edge saw while its node was dead was kept by the edge.
	until(t, "hq is fenced", 30*time.Second, func() bool {
		role, err := hq.NodeClient.Role(ctx)
		return err == nil && role.Holder == "east" && role.Term == 3 && role.Role == appliance.RoleStandby
	})
	if hq.Node().Roles().Fence(2) == nil || east.Node().Roles().Fence(3) != nil {
		t.Error("the old term commits, or the new one does not")
	}
	// A standby collects on.
	until(t, "hq is complete again", 30*time.Second, func() bool { return report(t, hq).Complete })
	// Nothing lost: each site's history is at the dashboard to the last sample,
	// sealed or not.
	for _, s := range f.Sites {
		var missing, total int
		until(t, s.Name+"'s samples", 20*time.Second, func() bool {
			missing, total = difference(t, s, east)
			return missing == 0 && total > 0
		})
		t.Logf("%s: %d of %d samples are at the dashboard", s.Name, total-missing, total)
	}
	if err := east.Promote(ctx, false); err != nil {
		t.Fatal(err)
	}
	until(t, "nobody holds", 20*time.Second, func() bool {
		role, err := west.NodeClient.Role(ctx)
		return err == nil && role.Holder == "" && role.Highest == 4
	})
}

// difference counts the samples that a site has and a dashboard has not, of
// those that are a few seconds old.
func difference(t *testing.T, site, dashboard *lab.Site) (missing, total int) {
	own, ok1 := site.Node().Store()
	all, ok2 := dashboard.Node().Collected()
	if !ok1 || !ok2 {
		return 0, 0
	}
	upTo := time.Now().Add(-3 * time.Second).UnixMilli()
	for _, v := range own.Series(site.Name) {
		have := map[int64]bool{}
		for sample, err := range all.Samples(v, 0, upTo) {
			if err != nil {
				t.Error(err)
			}
			have[sample.At] = true
		}
		for sample, err := range own.Samples(v, 0, upTo) {
			if err != nil {
				t.Error(err)
			}
			if total++; !have[sample.At] {
				missing++
			}
		}
	}
	return missing, total
}
