package main

import (
	"bytes"
	"debug/elf"
	_ "embed"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed modules.txt
var modulePatterns string

// module is one kernel module of the image.
type module struct {
	name    string // as the kernel says it: with underscores
	data    []byte
	depends []string
	aliases []string
}

// selectModules reads the modules below dir (…/kernel) that the patterns name,
// one in each line, and all that they depend on.
func selectModules(dir, patterns string) ([]*module, error) {
	files := map[string]string{} // name -> file
	var wanted []string
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, ".ko") {
			return err
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		name := moduleName(file)
		files[name] = file
		if selected(strings.TrimSuffix(filepath.ToSlash(rel), ".ko"), patterns) {
			wanted = append(wanted, name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("kernel modules: %w", err)
	}
	have := map[string]*module{}
	for len(wanted) > 0 {
		name := wanted[0]
		wanted = wanted[1:]
		if have[name] != nil {
			continue
		}
		file, ok := files[name]
		if !ok {
			return nil, fmt.Errorf("kernel modules: %s is needed and is not in the package", name)
		}
		m, err := readModule(name, file)
		if err != nil {
			return nil, err
		}
		have[name] = m
		wanted = append(wanted, m.depends...)
	}
	all := make([]*module, 0, len(have))
	for _, m := range have {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *module) int { return strings.Compare(a.name, b.name) })
	return all, nil
}

func moduleName(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_")
}

func selected(rel, patterns string) bool {
	for line := range strings.Lines(patterns) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		if ok, err := path.Match(line, rel); err == nil && ok {
			return true
		}
	}
	return false
}

// readModule reads a module and what it says of itself in its .modinfo section.
func readModule(name, file string) (*module, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("kernel module %s: %w", name, err)
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("kernel module %s: %w", name, err)
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("kernel module %s: no .modinfo", name)
	}
	text, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("kernel module %s: %w", name, err)
	}
	m := &module{name: name, data: data}
	for line := range strings.SplitSeq(string(text), "\x00") {
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "depends":
			for d := range strings.SplitSeq(value, ",") {
				if d != "" {
					m.depends = append(m.depends, strings.ReplaceAll(d, "-", "_"))
				}
			}
		case "alias":
			m.aliases = append(m.aliases, value)
		}
	}
	return m, nil
}

// moduleIndex is what the appliance finds modules by: a line of a module and
// its dependencies, then a line for each alias.
func moduleIndex(all []*module) []byte {
	var b bytes.Buffer
	for _, m := range all {
		fmt.Fprintf(&b, "m %s %s\n", m.name, strings.Join(m.depends, ","))
		for _, a := range m.aliases {
			fmt.Fprintf(&b, "a %s %s\n", m.name, a)
		}
	}
	return b.Bytes()
}
