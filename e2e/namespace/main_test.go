package namespace

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// prefix starts the name of every namespace of this process.
var prefix = fmt.Sprintf("pt%d", os.Getpid())

func TestMain(m *testing.M) {
	if why := missing(); why != "" {
		fmt.Fprintln(os.Stderr, "LEFT OUT: the namespace tests:", why)
		os.Exit(0)
	}
	sweep()
	os.Exit(m.Run())
}

// missing says what the tests need and do not have.
func missing() string {
	if os.Geteuid() != 0 {
		return "not root"
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return "no /dev/net/tun"
	}
	for _, tool := range []string{"ip", "nft", "ping", "iperf3", "wg", "ethtool"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "no " + tool + " (make setup installs it)"
		}
	}
	if _, err := os.Stat(program()); err != nil {
		return "no " + program() + " (make build makes it)"
	}
	return ""
}

// program is what is under test.
func program() string {
	if bin := os.Getenv("PATRONUS_BIN"); bin != "" {
		return bin
	}
	bin, err := filepath.Abs("../../bin/patronus")
	if err != nil {
		panic(err)
	}
	return bin
}

func long() bool { return os.Getenv("PATRONUS_LONG") != "" }

func needLong(t *testing.T) {
	t.Helper()
	if !long() {
		t.Skip("PATRONUS_LONG is not set")
	}
}

var ownName = regexp.MustCompile(`^pt(\d+)-`)

// sweep removes what an earlier run of these tests left when it was killed.
func sweep() {
	entries, _ := os.ReadDir("/run/netns")
	for _, e := range entries {
		m := ownName.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		pid, err := strconv.Atoi(m[1])
		if err != nil || syscall.Kill(pid, 0) == nil {
			continue // its owner lives
		}
		netns(e.Name()).remove()
	}
}

// sh runs a command that must succeed and returns what it printed.
func sh(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// eventually polls f until it returns nil.
func eventually(t testing.TB, within time.Duration, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		<-tick.C
	}
}

// during lets d pass; it is a part of a load, never a way to wait for something.
func during(d time.Duration) { <-time.After(d) }
