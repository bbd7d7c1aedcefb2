package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// machine is one virtual machine with a disk of its own.
type machine struct {
	t    *testing.T
	name string
	disk string
	nics []nic
	args []string
	// within is what the emulator is started by, for a network of its own.
	within []string

	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan struct{}

	mu     sync.Mutex
	text   bytes.Buffer // of the serial line
	fresh  chan struct{}
	marked int
}

type nic struct{ socket, mac string }

const firmware = "/usr/share/OVMF/OVMF_CODE_4M.fd"

// newMachine gives a machine a copy of a disk, larger than the image.
func newMachine(t *testing.T, name, image string, nics ...nic) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{t: t, name: name, disk: filepath.Join(dir, name+".raw"), nics: nics}
	command(t, "cp", "--sparse=always", image, m.disk)
	if err := os.Truncate(m.disk, 512<<20); err != nil {
		t.Fatal(err)
	}
	command(t, "cp", "/usr/share/OVMF/OVMF_VARS_4M.fd", m.disk+".vars")
	return m
}

// put writes a file to the EFI partition, as a person would who mounts it.
func (m *machine) put(name, text string) {
	m.t.Helper()
	cmd := exec.Command("mcopy", "-o", "-i", m.disk+"@@1M", "-", "::/patronus/"+name)
	cmd.Env = append(os.Environ(), "MTOOLS_SKIP_CHECK=1")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("%s: mcopy: %v: %s", m.name, err, out)
	}
}

// boot starts the emulator. It is killed when the test ends.
func (m *machine) boot() {
	m.t.Helper()
	args := []string{
		"-machine", "q35,accel=tcg", "-m", "512", "-smp", "1", "-display", "none", "-no-user-config", "-nodefaults",
		"-serial", "stdio", "-monitor", "unix:" + m.disk + ".monitor,server=on,wait=off",
		"-drive", "if=pflash,format=raw,readonly=on,file=" + firmware,
		"-drive", "if=pflash,format=raw,file=" + m.disk + ".vars",
		"-drive", "file=" + m.disk + ",format=raw,if=virtio,cache=writethrough",
		"-device", "virtio-rng-pci",
	}
	for i, n := range m.nics {
		args = append(args, "-netdev", fmt.Sprintf("stream,id=n%d,server=off,addr.type=unix,addr.path=%s", i, n.socket),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=n%d,mac=%s,romfile=", i, n.mac))
	}
	args = slices.Concat(m.within, []string{"qemu-system-x86_64"}, args, m.args)
	m.cmd = exec.Command(args[0], args[1:]...)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	m.mu.Lock()
	m.text.Reset()
	m.marked, m.fresh = 0, make(chan struct{}, 1)
	m.mu.Unlock()
	m.cmd.Stdout, m.cmd.Stderr = m, m
	var err error
	if m.stdin, err = m.cmd.StdinPipe(); err != nil {
		m.t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	ended, cmd := make(chan struct{}), m.cmd
	m.ended = ended
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	m.t.Cleanup(func() {
		m.cut()
		if m.t.Failed() {
			m.t.Logf("serial line of %s:\n%s", m.name, m.tail(6000))
		}
	})
}

// Write takes the serial line.
func (m *machine) Write(b []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.text.Write(bytes.ReplaceAll(b, []byte("\r"), nil))
	select {
	case m.fresh <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (m *machine) tail(n int) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.text.String()
	return s[max(0, len(s)-n):]
}

// expect waits for text that comes after the last match, and returns its groups.
func (m *machine) expect(pattern string, patience time.Duration) []string {
	m.t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(patience)
	for {
		m.mu.Lock()
		rest := m.text.Bytes()[m.marked:]
		at := re.FindSubmatchIndex(rest)
		var found []string
		if at != nil {
			for i := 0; i < len(at); i += 2 {
				found = append(found, string(rest[max(at[i], 0):max(at[i+1], 0)]))
			}
			m.marked += at[1]
		}
		m.mu.Unlock()
		if found != nil {
			return found
		}
		select {
		case <-m.fresh:
		case <-m.ended:
			m.t.Fatalf("%s: the emulator ended before %q", m.name, pattern)
		case <-timeout:
			m.t.Fatalf("%s: no %q within %s", m.name, pattern, patience)
		}
	}
}

func (m *machine) send(line string) {
	m.t.Helper()
	if _, err := io.WriteString(m.stdin, line+"\n"); err != nil {
		m.t.Fatalf("%s: %v", m.name, err)
	}
}

// cut is the loss of power.
func (m *machine) cut() {
	if m.cmd != nil {
		_ = m.cmd.Process.Kill()
		<-m.ended
	}
}

// off waits until the machine has powered itself off.
func (m *machine) off(patience time.Duration) {
	m.t.Helper()
	select {
	case <-m.ended:
	case <-time.After(patience):
		m.t.Fatalf("%s: not off within %s", m.name, patience)
	}
}

// cpu is what the emulator has used, which a busy host disturbs less than time.
func (m *machine) cpu() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var user, system int64
	fmt.Sscan(fields[11], &user)
	fmt.Sscan(fields[12], &system)
	return time.Duration(user+system) * 10 * time.Millisecond
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
