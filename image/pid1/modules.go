package pid1

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const modulesDir = "/lib/modules"

// moduleIndex finds kernel modules by name and by what devices ask for. It is
// safe for concurrent use.
type moduleIndex struct {
	depends map[string][]string
	aliases map[string][]alias // by the text before the first colon
	load    func(name string) error

	mu     sync.Mutex
	loaded map[string]bool
}

// alias is what a module is for. Most patterns are refused by the text before
// their first wildcard, which is much cheaper than matching.
type alias struct{ pattern, literal, module string }

// parseModules reads the index that mkimage writes.
func parseModules(text []byte, load func(string) error) *moduleIndex {
	m := &moduleIndex{depends: map[string][]string{}, aliases: map[string][]alias{}, loaded: map[string]bool{}, load: load}
	for line := range bytes.Lines(text) {
		kind, rest, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		name, value, _ := strings.Cut(rest, " ")
		switch kind {
		case "m":
			m.depends[name] = strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
		case "a":
			bus := busOf(value)
			literal := value
			if i := strings.IndexAny(value, "*?["); i >= 0 {
				literal = value[:i]
			}
			m.aliases[bus] = append(m.aliases[bus], alias{value, literal, name})
		}
	}
	return m
}

func busOf(modalias string) string {
	bus, _, _ := strings.Cut(modalias, ":")
	return bus
}

// find are the modules for a device or a feature.
func (m *moduleIndex) find(modalias string) []string {
	name := strings.ReplaceAll(modalias, "-", "_")
	if _, ok := m.depends[name]; ok {
		return []string{name}
	}
	var found []string
	for _, a := range m.aliases[busOf(modalias)] {
		if !strings.HasPrefix(modalias, a.literal) {
			continue
		}
		if ok, err := path.Match(a.pattern, modalias); err == nil && ok && !slices.Contains(found, a.module) {
			found = append(found, a.module)
		}
	}
	return found
}

// add loads a module and what it depends on; one that is loaded is no error.
func (m *moduleIndex) add(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.addLocked(name, 0)
}

func (m *moduleIndex) addLocked(name string, depth int) error {
	if m.loaded[name] {
		return nil
	}
	depends, ok := m.depends[name]
	if !ok || depth > 20 {
		return fmt.Errorf("kernel module %s: %w", name, fs.ErrNotExist)
	}
	for _, d := range depends {
		if err := m.addLocked(d, depth+1); err != nil {
			return err
		}
	}
	if err := m.load(name); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("kernel module %s: %w", name, err)
	}
	m.loaded[name] = true
	return nil
}

// addFor loads what a device asks for. A driver that finds no hardware, or
// that another one has been quicker than, is none of our business.
func (m *moduleIndex) addFor(modalias string) {
	for _, name := range m.find(modalias) {
		_ = m.add(name)
	}
}

func loadModule(name string) error {
	f, err := os.Open(filepath.Join(modulesDir, name+".ko"))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// coldplug loads the modules of all devices that are there, until no new ones
// turn up: a bus driver brings devices of its own.
func (m *moduleIndex) coldplug() {
	done := map[string]bool{}
	for range 8 {
		fresh := false
		files, err := filepath.Glob("/sys/bus/*/devices/*/modalias")
		if err != nil {
			return
		}
		for _, file := range files {
			text, err := os.ReadFile(file) // a device may go while we look
			if name := strings.TrimSpace(string(text)); err == nil && name != "" && !done[name] {
				done[name], fresh = true, true
				m.addFor(name)
			}
		}
		if !fresh {
			return
		}
	}
}

// devices loads modules for devices that are plugged in later.
func (s *system) devices(ctx context.Context) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return fmt.Errorf("device events: %w", err)
	}
	f := os.NewFile(uintptr(fd), "device events")
	defer func() { _ = f.Close() }()
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return fmt.Errorf("device events: %w", err)
	}
	// The runtime's poller makes the read end with the file.
	if err := unix.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("device events: %w", err)
	}
	events := os.NewFile(uintptr(dup(fd)), "device events")
	stop := context.AfterFunc(ctx, func() { _ = events.Close() })
	defer stop()
	buf := make([]byte, 16<<10)
	for {
		n, err := events.Read(buf)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, unix.ENOBUFS) {
			continue
		}
		if err != nil {
			return fmt.Errorf("device events: %w", err)
		}
		for part := range bytes.SplitSeq(buf[:n], []byte{0}) {
			if name, ok := bytes.CutPrefix(part, []byte("MODALIAS=")); ok && s.board.booted() {
				s.modules.addFor(string(name))
			}
		}
	}
}

func dup(fd int) int {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1
	}
	return n
}

// Modprobe loads what the kernel asks for by calling /sbin/modprobe: the name
// is the last argument. It returns the exit status.
func Modprobe(args []string) int {
	text, err := os.ReadFile(filepath.Join(modulesDir, "index"))
	if err != nil || len(args) == 0 {
		return 1
	}
	m := parseModules(text, loadModule)
	status := 1
	for _, name := range m.find(args[len(args)-1]) {
		if m.add(name) == nil {
			status = 0
		}
	}
	return status
}

// IsModprobe reports whether the kernel called this program for a module.
func IsModprobe(args []string) bool { return len(args) > 0 && filepath.Base(args[0]) == "modprobe" }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
