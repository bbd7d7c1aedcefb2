package namespace

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestKillNode(t *testing.T) {
	w := newWorld(t, plan{})
	a, b := w.site("a"), w.site("b")
	for _, f := range families {
		st := newStream(t, a, b, f, 5003, streamRate)
		m := st.mark()
		old := a.pid("node")
		a.kill("node")
		eventually(t, 5*time.Second, "another node", func() error {
			if pid := a.pid("node"); pid == old || gone(pid) == nil {
				return fmt.Errorf("pid %d", pid)
			}
			return nil
		})
		st.recovered(t, m, 500, 5*time.Second)
		if lost := st.stop(); lost != [2]int64{} {
			t.Errorf("%v: lost %v of %d packets", f, lost, st.ends[0].sent.Load())
		}
	}
}

func TestKillEdge(t *testing.T) {
	for _, kind := range kinds {
		t.Run("lan="+kind, func(t *testing.T) {
			w := newWorld(t, plan{lan: kind})
			a, b := w.site("a"), w.site("b")
			tcp := newEcho(t, a, b, 6)
			st := newStream(t, a, b, 4, 5004, streamRate)
			held := descriptors(t, a.pid("supervisor"))
			routes := a.gateway.run(t, "ip", "route") + a.gateway.run(t, "ip", "-6", "route")
			m := st.mark()
			a.kill("edge")
			if now := a.gateway.run(t, "ip", "route") + a.gateway.run(t, "ip", "-6", "route"); now != routes {
				t.Errorf("routes without an edge:\n%s\nbefore:\n%s", now, routes)
			}
			gap := st.recovered(t, m, 3500, 10*time.Second)
			measured(t, "the edge was away for", gap, 3*time.Second)
			t.Logf("killed edge, lan %s: outage %v", kind, gap.Round(time.Millisecond))
			tcp.alive(t, 20, 10*time.Second)
			tcp.stop(t)
			if now := descriptors(t, a.pid("supervisor")); !slices.Equal(now, held) {
				t.Errorf("the supervisor's descriptors:\n%v\nbefore:\n%v", now, held)
			}
			w.waitUp()
		})
	}
}

// descriptors lists the sockets and TUN devices that a process holds, by what
// does not change while they are open.
func descriptors(t *testing.T, pid int) []string {
	t.Helper()
	udp := udpInodes(t, pid)
	var held []string
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err == nil && (to == "/dev/net/tun" || udp[to]) {
			held = append(held, to)
		}
	}
	slices.Sort(held)
	if len(held) == 0 {
		t.Errorf("process %d holds no UDP sockets", pid)
	}
	return held
}

// udpInodes are the UDP sockets of a process's namespace, as /proc names them.
func udpInodes(t *testing.T, pid int) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, file := range []string{"udp", "udp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, file))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) > 9 {
				all["socket:["+fields[9]+"]"] = true
			}
		}
	}
	return all
}

func TestKillSupervisor(t *testing.T) {
	w := newWorld(t, plan{})
	a, b := w.site("a"), w.site("b")
	edge, node := a.pid("edge"), a.pid("node")
	a.kill("supervisor")
	for _, pid := range []int{edge, node} {
		eventually(t, 3*time.Second, "the children die with their supervisor", func() error { return gone(pid) })
	}
	started := time.Now()
	a.start()
	eventually(t, 10*time.Second, "traffic after a restart", func() error {
		_, err := pings(a.host, b.addr(4), "-c", "1", "-W", "1")
		return err
	})
	t.Logf("supervisor started again: traffic after %v", time.Since(started).Round(time.Millisecond))
	w.waitUp()
	for _, f := range families {
		ping(t, b.host, a.addr(f), "-c", "3", "-i", "0.05")
	}
}

func TestReload(t *testing.T) {
	for _, kind := range kinds {
		t.Run("lan="+kind, func(t *testing.T) {
			w := newWorld(t, plan{lan: kind})
			a, b := w.site("a"), w.site("b")
			tcp := newEcho(t, a, b, 6)
			st := newStream(t, a, b, 4, 5005, streamRate)
			m := st.mark()

			// A bad file is refused, and says where it is bad.
			write(t, a, a.config("colour: green\n"))
			signal(t, a)
			eventually(t, 5*time.Second, "refusal in the log", func() error {
				if !strings.Contains(a.log(), "configuration refused") || !strings.Contains(a.log(), "colour") {
					return fmt.Errorf("the log says nothing")
				}
				return nil
			})
			if rev := a.status().Revision; rev != 1 {
				t.Errorf("a refused file made revision %d", rev)
			}

			// A good one is applied, by signal and by command.
			write(t, a, a.config("classes: [{name: games, match: [{protocol: udp, ports: [5005]}]}]\n"))
			signal(t, a)
			revision(t, a, 2)
			write(t, a, a.config(""))
			sh(t, program(), "reload", "--data-dir", a.dataDir())
			revision(t, a, 3)

			measured(t, "the stream paused for", st.recovered(t, m, 300, 5*time.Second), 200*time.Millisecond)
			if lost := st.stop(); lost != [2]int64{} {
				t.Errorf("lost %v of %d packets", lost, st.ends[0].sent.Load())
			}
			tcp.alive(t, 20, 5*time.Second)
			tcp.stop(t)
		})
	}
}

func write(t *testing.T, s *site, text string) {
	t.Helper()
	if err := os.WriteFile(s.file(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func signal(t *testing.T, s *site) {
	t.Helper()
	if err := syscall.Kill(s.pid("supervisor"), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

func revision(t *testing.T, s *site, want uint64) {
	t.Helper()
	eventually(t, 5*time.Second, fmt.Sprintf("revision %d", want), func() error {
		if got := s.status().Revision; got != want {
			return fmt.Errorf("revision %d", got)
		}
		return nil
	})
}

// TestConfigCheck is here because it is the built binary that people ask.
func TestConfigCheck(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("fabric: x\nsite: y\nfoo: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program(), "config", "check", bad).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "bad.yaml:3:") || !strings.Contains(string(out), "sites") {
		t.Errorf("check of a bad file: %v\n%s", err, out)
	}
}
