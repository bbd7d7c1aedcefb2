package namespace

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"patronus/netstack"
)

// process is a started program whose end is awaited by one goroutine.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// spawn starts a command that is killed when the test ends.
func spawn(t testing.TB, cmd *exec.Cmd) process {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := process{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		// How it ended is the test's business only if it asks.
		_ = cmd.Wait()
	}()
	t.Cleanup(p.kill)
	return p
}

func (p process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// start runs the site's gateway: a supervisor with its edge and node.
func (s *site) start() {
	t := s.w.t
	t.Helper()
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := s.gateway.command(program(), "run", "--config", s.file())
	cmd.Stdout, cmd.Stderr = log, log
	first := s.process.cmd == nil
	s.process = spawn(t, cmd)
	if first {
		t.Cleanup(s.showLog)
	}
}

func (s *site) logFile() string { return filepath.Join(s.dir, "log") }

// showLog prints the end of the gateway's log if the test failed.
func (s *site) showLog() {
	if !s.w.t.Failed() {
		return
	}
	lines := strings.Split(s.log(), "\n")
	s.w.t.Logf("log of %s:\n%s", s.name, strings.Join(lines[max(0, len(lines)-25):], "\n"))
}

func (s *site) log() string {
	text, _ := os.ReadFile(s.logFile())
	return string(text)
}

func (s *site) dataDir() string { return filepath.Join(s.dir, "data") }

// pid of the supervisor, edge or node.
func (s *site) pid(role string) int {
	s.w.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dataDir(), "run", role+".pid"))
	if err != nil {
		s.w.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		s.w.t.Fatal(err)
	}
	return pid
}

// kill -9 of a role; it returns when the process is gone.
func (s *site) kill(role string) {
	t := s.w.t
	t.Helper()
	pid := s.pid(role)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %s: %v", role, err)
	}
	eventually(t, 2*time.Second, role+" is gone", func() error { return gone(pid) })
}

// gone is nil once a process has ended.
func gone(pid int) error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	if _, rest, ok := bytes.Cut(text, []byte(") ")); ok && rest[0] == 'Z' {
		return nil
	}
	return fmt.Errorf("process %d lives", pid)
}

// ask runs a command of the CLI and decodes what it prints.
func (s *site) ask(v any, args ...string) error {
	args = append(args, "--output", "json", "--data-dir", s.dataDir())
	out, err := exec.Command(program(), args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return fmt.Errorf("patronus %s: %w: %s", args[0], err, bytes.TrimSpace(exit.Stderr))
		}
		return err
	}
	return json.Unmarshal(out, v)
}

func (s *site) paths() ([]netstack.PathStatus, error) {
	var p []netstack.PathStatus
	err := s.ask(&p, "paths")
	return p, err
}

// status is what the gateway says of itself; it must answer.
func (s *site) status() *netstack.Status {
	s.w.t.Helper()
	var st netstack.Status
	if err := s.ask(&st, "status"); err != nil {
		s.w.t.Fatal(err)
	}
	return &st
}

// flow finds the flow with a port, as this site has it.
func (s *site) flow(protocol string, port uint16) (*netstack.FlowStatus, error) {
	var flows []netstack.FlowStatus
	if err := s.ask(&flows, "flows", "--limit", "200"); err != nil {
		return nil, err
	}
	for i := range flows {
		if f := &flows[i]; f.Protocol == protocol && (f.Port == port || f.SrcPort == port) {
			return f, nil
		}
	}
	return nil, fmt.Errorf("no %s flow with port %d among %d", protocol, port, len(flows))
}

// uplinkOf waits until a flow has a path and returns the path's local uplink.
func (s *site) uplinkOf(protocol string, port uint16) string {
	s.w.t.Helper()
	var uplink string
	eventually(s.w.t, 3*time.Second, "flow on a path", func() error {
		f, err := s.flow(protocol, port)
		if err != nil {
			return err
		}
		local, _, ok := strings.Cut(string(f.Path), "~")
		if !ok {
			return fmt.Errorf("the flow has no path: %+v", f)
		}
		_, uplink, _ = strings.Cut(local, ".")
		return nil
	})
	return uplink
}

func states(paths []netstack.PathStatus) map[string]string {
	m := map[string]string{}
	for i := range paths {
		m[string(paths[i].ID)] = paths[i].State + " " + paths[i].Why
	}
	return m
}

// rss is the resident memory of a process, bytes.
func rss(t testing.TB, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// fds is how many descriptors a process has.
func fds(t testing.TB, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
