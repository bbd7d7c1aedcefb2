package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// long skips a test that `make test-long` runs.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("PATRONUS_LONG") == "" {
		t.Skip("SKIPPED: needs PATRONUS_LONG=1 (make test-long)")
	}
}

// program finds an engine's program or skips the test.
func program(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if p, err := exec.LookPath(name); err == nil {
			return p
		}
		if all, err := filepath.Glob(name); err == nil && len(all) > 0 {
			return all[len(all)-1]
		}
	}
	t.Skipf("SKIPPED: %s is not installed (make setup does, as root)", names[0])
	return ""
}

// nobody is who engines run as if we are root, which some refuse.
func nobody(t *testing.T) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Skipf("SKIPPED: no user to run engines as: %v", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// home makes a directory that the engine may write.
func home(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	// The directory above is ours alone.
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if c := nobody(t); c != nil {
		if err := os.Chown(dir, int(c.Uid), int(c.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// port is a port of loopback that was free a moment ago.
func port(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// server is an engine that can be ended and started again.
type server struct {
	dir   string
	args  []string
	env   []string
	ready func(context.Context) error

	cmd    *exec.Cmd
	ended  chan struct{}
	output bytes.Buffer
}

// start runs the engine until it answers.
func (s *server) start(t *testing.T) {
	t.Helper()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Dir = s.dir
	s.cmd.Env = append([]string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}, s.env...)
	s.cmd.Stdout, s.cmd.Stderr = &s.output, &s.output
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: nobody(t), Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	s.ended = ended
	go func(c *exec.Cmd) {
		// How it ended does not matter: tests kill it.
		_ = c.Wait()
		close(ended)
	}(s.cmd)
	t.Cleanup(func() { s.end(t, syscall.SIGKILL) })
	if err := eventually(t, 40*time.Second, func(ctx context.Context) error {
		select {
		case <-ended:
			return errors.New("it ended")
		default:
			return s.ready(ctx)
		}
	}); err != nil {
		s.end(t, syscall.SIGKILL)
		t.Fatalf("%s: %v\n%s", s.args[0], err, &s.output)
	}
}

// end sends a signal to the engine and waits until it is gone.
func (s *server) end(t *testing.T, sig syscall.Signal) {
	t.Helper()
	select {
	case <-s.ended:
		return
	default:
	}
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("%s: %v", s.args[0], err)
	}
	select {
	case <-s.ended:
	case <-time.After(20 * time.Second):
		t.Errorf("%s does not end", s.args[0])
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
}

// eventually calls f until it succeeds or time is up.
func eventually(t *testing.T, most time.Duration, f func(context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), most)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil { // what was wrong, not that time is up
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %s: %w", most, last)
		case <-tick.C:
		}
	}
}

// get reads a page of an engine.
func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return string(text), err
}
