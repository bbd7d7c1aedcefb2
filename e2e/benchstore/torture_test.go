package benchstore

import (
	"encoding/json"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if Child() {
		return
	}
	os.Exit(m.Run())
}

// long skips what takes minutes, unless it was asked for.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("PATRONUS_LONG") == "" {
		t.Skip("make test-long runs this")
	}
}

func judge(t *testing.T, f Finding, err error) {
	t.Helper()
	text, _ := json.Marshal(f)
	t.Logf("%s", text)
	if err != nil {
		t.Error(err)
	}
	if f.Skipped != "" {
		t.Skip(f.Skipped)
	}
	if !f.Good() {
		t.Errorf("lost %d, wrong %d, silent %d, died %d: %s", f.Lost, f.Wrong, f.Silent, f.Died, f.Notes)
	}
}

func TestKill(t *testing.T) {
	long(t)
	for _, what := range []string{"store", "dashboard", "ledger"} {
		t.Run(what, func(t *testing.T) {
			f, err := Kill(t.Context(), what, t.TempDir(), 12)
			judge(t, f, err)
		})
	}
}

func TestHarm(t *testing.T) {
	long(t)
	f, err := Harm(t.Context(), t.TempDir(), 60)
	judge(t, f, err)
}

func TestFull(t *testing.T) {
	long(t)
	f, err := Full(t.Context(), t.TempDir())
	judge(t, f, err)
}

func TestBranch(t *testing.T) {
	long(t)
	f, err := Branch(t.Context(), t.TempDir(), 8) // the full ninety take minutes
	judge(t, f, err)
	if err == nil && f.MiB > 80 {
		t.Errorf("%.0f MiB", f.MiB)
	}
}

// A few of each run always, so that the tortures themselves are tested.
func TestTortures(t *testing.T) {
	f, err := Kill(t.Context(), "store", t.TempDir(), 2)
	judge(t, f, err)
	f, err = Harm(t.Context(), t.TempDir(), 4)
	judge(t, f, err)
}
