package house

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"patronus/netstack"
	"patronus/netstack/lan"
	"patronus/netstack/packet"
	"patronus/netstack/probe"
	"patronus/netstack/tunnel"
)

// pages are the Markdown files of the tree.
func pages(t *testing.T) []file {
	t.Helper()
	var all []file
	for _, f := range tree(t) {
		if path.Ext(f.path) == ".md" {
			all = append(all, f)
		}
	}
	return all
}

var link = regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)

// Every link within the tree leads somewhere, and the README leads to every
// page for operators.
func TestLinks(t *testing.T) {
	for _, f := range pages(t) {
		if strings.HasPrefix(f.path, "appliance/docs/") && !bytes.Contains(readme(t), []byte("]("+f.path+")")) {
			t.Errorf("README.md does not lead to %s", f.path)
		}
		for _, m := range link.FindAllStringSubmatch(string(f.text), -1) {
			to := path.Join(path.Dir(f.path), m[1])
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(to))); err != nil {
				t.Errorf("%s: link to %s: there is no %s", f.path, m[1], to)
			}
		}
	}
}

var (
	fence   = regexp.MustCompile("(?ms)^ *```(sh|ini|yaml|json)?\n(.*?)^ *```")
	invoked = regexp.MustCompile(`^ *(?:bin/|/usr/local/bin/)?patronus ([a-z].*)$`)
	flags   = regexp.MustCompile(`^--?[a-z][a-z-]*`)
)

// Every command line that a page shows has commands and flags that exist.
func TestCommandsInPages(t *testing.T) {
	known := leaves(t)
	usage := map[string]string{}
	for _, c := range known {
		usage[c] = help(t, strings.Fields(c)...)
	}
	seen := 0
	for _, f := range pages(t) {
		for _, block := range fence.FindAllStringSubmatch(string(f.text), -1) {
			if block[1] != "sh" {
				continue
			}
			for line := range strings.Lines(block[2]) {
				line, _, _ = strings.Cut(strings.TrimRight(line, "\n"), " #")
				m := invoked.FindStringSubmatch(line)
				if m == nil {
					continue
				}
				seen++
				if err := checkCommand(m[1], known, usage); err != nil {
					t.Errorf("%s: %q: %v", f.path, strings.TrimSpace(line), err)
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d command lines found", seen)
	}
}

func checkCommand(line string, known []string, usage map[string]string) error {
	words := strings.Fields(line)
	command := words[0]
	if len(words) > 1 && slices.Contains(known, command+" "+words[1]) {
		command += " " + words[1]
	}
	text, ok := usage[command]
	if !ok {
		return fmt.Errorf("no command %q", command)
	}
	for _, w := range words[1:] {
		if w == ">" || w == "|" {
			break
		}
		name := flags.FindString(w)
		if name == "" {
			continue
		}
		if len(name) > 2 && name[1] != '-' {
			name = "-" + name
		}
		if !regexp.MustCompile(`(?m)(^|[ ,])` + regexp.QuoteMeta(name) + `([=, ]|$)`).MatchString(text) {
			return fmt.Errorf("%s has no flag %s", command, name)
		}
	}
	return nil
}

// Whatever can be counted is explained to the person who reads the number.
func TestCountersAreExplained(t *testing.T) {
	const page = "appliance/docs/reading-the-counters.md"
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(page)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := netstack.NoReason + 1; r.String() != "unknown"; r++ {
		names = append(names, r.String())
	}
	for f := packet.OK + 1; f < packet.FaultCount; f++ {
		names = append(names, f.String())
	}
	for d := range lan.NumDrops {
		names = append(names, d.String())
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[tunnel.Counters](), reflect.TypeFor[probe.InBandStats]()} {
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if name == "" {
				name = typ.Field(i).Name
			}
			names = append(names, name)
		}
	}
	if len(names) < 40 {
		t.Fatalf("only %d counters found", len(names))
	}
	for _, n := range names {
		if !strings.Contains(string(text), "`"+n+"`") {
			t.Errorf("%s does not explain %q", page, n)
		}
	}
}

// A newcomer reads one page; it names the two commands and where to go on.
func TestReadme(t *testing.T) {
	for _, want := range []string{"make run", "make test", "configs/examples", "appliance/docs/picture.svg", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"} {
		if !bytes.Contains(readme(t), []byte(want)) {
			t.Errorf("README.md does not name %s", want)
		}
	}
}

func readme(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}
