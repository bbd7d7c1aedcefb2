package house

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// rule says what the packages of a pattern may import of ours.
type rule struct {
	pattern string
	may     []string
}

// module is our import path.
const module = "patronus"

// direction is the import direction of the house. The first line whose pattern
// fits a package holds; may lists what it may import of ours. A pattern that
// ends in /... takes the package and all below it. A package that no line fits
// needs one: where does it belong?
var direction = []rule{
	{"configs", nil},
	{"netstack/packet", nil},
	{"netstack/flow", []string{"netstack/packet"}},
	{"netstack/policy/manifest", nil},
	{"netstack/policy", []string{"configs", "netstack/packet", "netstack/policy/manifest"}},
	{"netstack/policy/simulate", []string{"configs", "netstack/packet", "netstack/flow", "netstack/policy", "netstack/policy/manifest"}},
	{"netstack/path", []string{"configs", "netstack/packet"}},
	{"netstack/probe", []string{"netstack/path"}},
	{"netstack/tunnel", []string{"configs", "netstack/packet"}},
	{"netstack/lan", []string{"netstack/packet"}},
	{"netstack", []string{"configs", "netstack/..."}},
	{"netstack/...", []string{"configs", "netstack/packet"}},
	{"appliance/store", []string{"configs", "netstack/path", "netstack/flow"}},
	{"appliance/ledger", nil},
	{"appliance/enroll", []string{"configs"}},
	{"appliance/agent", []string{"configs", "netstack/path", "appliance/store"}},
	{"appliance/metrics", []string{"netstack/...", "appliance/store", "dashboard/export/series"}},
	{"appliance/console", []string{"configs", "netstack/...", "appliance/store", "dashboard", "dashboard/alert", "dashboard/control", "dashboard/live"}},
	{"appliance", []string{"configs", "netstack/...", "appliance/store", "appliance/ledger", "appliance/agent", "appliance/metrics", "appliance/console", "appliance/enroll", "dashboard/..."}},
	// The lab needs the link emulator that the tests use: see its DESIGN.md.
	{"appliance/lab", []string{"configs", "netstack/...", "appliance", "e2e/vnet"}},
	{"appliance/cli", []string{"configs", "netstack/...", "appliance", "appliance/...", "dashboard", "dashboard/alert", "dashboard/auth", "dashboard/client", "dashboard/collect", "dashboard/control", "image/pid1", "image/release", "image/slot", "e2e/vnet"}},
	{"appliance/cmd/patronus", []string{"configs", "appliance", "appliance/cli", "image/pid1"}},
	{"dashboard/export/outbound", nil},
	{"dashboard/export/queue", nil},
	{"dashboard/export/selfmon", nil},
	{"dashboard/export/series", []string{"netstack/path"}},
	{"dashboard/export/syslog", []string{"dashboard/export/outbound"}},
	{"dashboard/export", []string{"appliance/store", "netstack/path", "dashboard/export/..."}},
	{"dashboard/live", []string{"netstack/path"}},
	{"dashboard/auth", []string{"appliance/ledger"}},
	{"dashboard/alert", []string{"configs", "appliance/ledger", "netstack/policy/manifest", "dashboard/export/outbound"}},
	{"dashboard/control", []string{"configs", "appliance/enroll", "appliance/ledger", "dashboard/auth", "netstack/policy"}},
	{"dashboard", []string{"configs", "appliance/enroll", "appliance/ledger", "netstack/path", "netstack/flow", "netstack/policy/...", "dashboard/alert", "dashboard/auth", "dashboard/control", "dashboard/live", "dashboard/web"}},
	{"dashboard/web", nil},
	{"dashboard/web/pack", []string{"dashboard/web"}},
	{"dashboard/client", []string{"configs", "appliance/enroll", "dashboard", "dashboard/alert", "dashboard/auth", "dashboard/control"}},
	{"dashboard/...", []string{"configs", "appliance/store", "appliance/ledger", "appliance/agent", "netstack/policy", "dashboard/..."}},
	{"image/...", []string{"configs", "image/..."}},
	// The emulator is a library of the lab, so it knows no more than ports and packets.
	{"e2e/vnet", []string{"netstack/packet", "netstack/lan"}},
	{"e2e/...", []string{"configs", "netstack/...", "appliance/...", "dashboard/...", "image/...", "e2e/..."}},
}

func fits(pattern, pkg string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == base || strings.HasPrefix(pkg, base+"/")
	}
	return pattern == pkg
}

// graph is what the non-test files of each package import: ours, relative to
// the module, and others.
func graph(t *testing.T) (ours, others map[string][]string) {
	ours, others = map[string][]string{}, map[string][]string{}
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		pkg := s.dir()
		if _, ok := ours[pkg]; !ok {
			ours[pkg] = nil
		}
		for _, p := range s.imports() {
			if rest, ok := strings.CutPrefix(p, module+"/"); ok {
				ours[pkg] = append(ours[pkg], rest)
			} else {
				others[pkg] = append(others[pkg], p)
			}
		}
	}
	return ours, others
}

func TestImportDirection(t *testing.T) {
	ours, _ := graph(t)
	for _, pkg := range slices.Sorted(maps.Keys(ours)) {
		i := slices.IndexFunc(direction, func(r rule) bool { return fits(r.pattern, pkg) })
		if i < 0 {
			t.Errorf("%s: no line of the import direction speaks of it", pkg)
			continue
		}
		for _, imported := range ours[pkg] {
			if !slices.ContainsFunc(direction[i].may, func(p string) bool { return fits(p, imported) }) {
				t.Errorf("%s imports %s; %s may import %v of ours", pkg, imported, direction[i].pattern, direction[i].may)
			}
		}
	}
}

// walls are what a part of the tree must not reach, through however many of our
// own packages.
var walls = []struct{ part, wall, why string }{
	{"netstack/...", "github.com/gofiber/", "the data plane knows no web server"},
	{"netstack/...", "github.com/dgraph-io/badger", "the data plane knows no database"},
	{"dashboard/...", "gvisor.dev/", "the dashboard knows no packets"},
	{"dashboard/...", "golang.zx2c4.com/wireguard", "the dashboard knows no keys"},
	{"configs", "gvisor.dev/", "a configuration is data"},
	{"configs", "golang.zx2c4.com/", "a configuration is data"},
	{"appliance/...", "testing", "the product carries no tests"},
	{"e2e/vnet", "testing", "the lab uses it"},
}

func TestWalls(t *testing.T) {
	ours, others := graph(t)
	for _, w := range walls {
		for pkg := range ours {
			if !fits(w.part, pkg) {
				continue
			}
			for reached := range reach(ours, pkg) {
				for _, p := range others[reached] {
					if p == w.wall || strings.HasPrefix(p, strings.TrimSuffix(w.wall, "/")+"/") {
						t.Errorf("%s reaches %s through %s: %s", pkg, p, reached, w.why)
					}
				}
			}
		}
	}
}

// reach is a package and every package of ours below it.
func reach(ours map[string][]string, pkg string) map[string]bool {
	seen := map[string]bool{}
	rest := []string{pkg}
	for len(rest) > 0 {
		p := rest[0]
		rest = rest[1:]
		if !seen[p] {
			seen[p] = true
			rest = append(rest, ours[p]...)
		}
	}
	return seen
}

// cgo would end the static binary.
func TestNoCgo(t *testing.T) {
	_, others := graph(t)
	for pkg, all := range others {
		if slices.Contains(all, "C") {
			t.Errorf("%s uses cgo", pkg)
		}
	}
}
