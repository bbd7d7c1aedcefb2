package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"

	"patronus/dashboard/web"
)

func main() {
	root := "dashboard"
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	if err := run(root); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

// files are those of the interface, by their path below the build's URL.
type files map[string][]byte

func run(root string) error {
	src, modules, dist := filepath.Join(root, "web/src"), filepath.Join(root, "web/node_modules"), filepath.Join(root, "web/dist")
	if _, err := os.Stat(modules); err != nil {
		return fmt.Errorf("libraries are missing (npm ci in %s/web brings them): %w", root, err)
	}
	out := files{}
	if err := out.add(src, "", ".js", ".svg"); err != nil {
		return err
	}
	if err := out.add(filepath.Join(root, "handbook"), "handbook/", ".md"); err != nil {
		return err
	}
	// The references that are made of the code.
	for name, file := range map[string]string{"configuration": "reference/configuration.md", "cli": "reference/cli.md", "metrics": "metrics.md"} {
		text, err := os.ReadFile(filepath.Join(root, "../appliance/docs", file))
		if err != nil {
			return fmt.Errorf("handbook: %w", err)
		}
		out["handbook/"+name+".md"] = text
	}
	if err := out.vendor(modules); err != nil {
		return err
	}
	if err := out.icons(filepath.Join(modules, "lucide-static")); err != nil {
		return err
	}
	css, err := style(root)
	if err != nil {
		return err
	}
	out["style.css"] = css
	routes, err := out.routes()
	if err != nil {
		return err
	}
	return out.write(dist, routes)
}

// add takes a folder's files of the given kinds.
func (f files) add(folder, under string, kinds ...string) error {
	return filepath.WalkDir(folder, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !slices.Contains(kinds, path.Ext(name)) || strings.HasSuffix(name, ".test.js") {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(folder, name)
		if err != nil {
			return err
		}
		f[under+filepath.ToSlash(rel)] = text
		return nil
	})
}

// style compiles the style sheet: the classes that the pages use.
func style(root string) ([]byte, error) {
	folder := filepath.Join(root, "web")
	made, err := os.CreateTemp("", "style-*.css")
	if err != nil {
		return nil, err
	}
	defer os.Remove(made.Name())
	if err := made.Close(); err != nil {
		return nil, err
	}
	cmd := exec.Command("node_modules/.bin/tailwindcss", "-i", "src/style/app.css", "-o", made.Name(), "--minify")
	cmd.Dir = folder
	if said, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile the style sheet: %w\n%s", err, said)
	}
	return os.ReadFile(made.Name())
}

// iconCall names an icon for certain, quoted may.
var iconCall = regexp.MustCompile(`icon(?:\(|: )'([a-z0-9-]+)'`)

var quoted = regexp.MustCompile(`'([a-z0-9]+(?:-[a-z0-9]+)*)'`)

// icons makes one module of the shapes of the icons whose names the pages have.
// A sheet in SVG would be fetched once for each use that is drawn at first.
func (f files) icons(folder string) error {
	text, err := os.ReadFile(filepath.Join(folder, "icon-nodes.json"))
	if err != nil {
		return err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("icon-nodes.json: %w", err)
	}
	used := map[string]json.RawMessage{}
	for name, text := range f {
		if path.Ext(name) != ".js" || strings.HasPrefix(name, "vendor/") {
			continue
		}
		for _, m := range iconCall.FindAllSubmatch(text, -1) {
			if all[string(m[1])] == nil {
				return fmt.Errorf("%s: there is no icon %s", name, m[1])
			}
		}
		for _, m := range quoted.FindAllSubmatch(text, -1) {
			if shape, ok := all[string(m[1])]; ok { // if not, it is another word
				used[string(m[1])] = shape
			}
		}
	}
	made, err := json.Marshal(used)
	if err != nil {
		return err
	}
	f["vendor/icons.js"] = append(append([]byte("// Icons of Lucide, see third-party.txt.\nexport const shapes = "), made...), ";\n"...)
	return nil
}

var (
	routeLine   = regexp.MustCompile(`path: '(/[^']*)', page: '([a-z]+)'`)
	staticLine  = regexp.MustCompile(`(?m)^\s*(?:import|export)\s[^;'"]*?(?:from\s*)?['"](\.[^'"]+)['"]`)
	dynamicLine = regexp.MustCompile("import\\(\\s*['\"](\\.[^'\"]+)['\"]")
)

// routes reads the pages from the router, with all modules that each needs: a
// browser that is told of them fetches them at once, not one after another.
func (f files) routes() ([]web.Route, error) {
	for name := range f {
		if path.Ext(name) != ".js" {
			continue
		}
		for _, to := range f.imports(name) {
			if f[to] == nil {
				return nil, fmt.Errorf("%s imports %s, which is not there", name, to)
			}
		}
	}
	var list []web.Route
	for _, m := range routeLine.FindAllSubmatch(f["core/router.js"], -1) {
		page := "pages/" + string(m[2]) + ".js"
		if f[page] == nil {
			return nil, fmt.Errorf("route %s: %s is not there", m[1], page)
		}
		list = append(list, web.Route{Path: string(m[1]), Modules: f.closure("app.js", page)})
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("core/router.js has no routes")
	}
	return list, nil
}

func (f files) imports(name string) []string {
	var list []string
	for _, lines := range []*regexp.Regexp{staticLine, dynamicLine} {
		for _, m := range lines.FindAllSubmatch(f[name], -1) {
			list = append(list, path.Join(path.Dir(name), string(m[1])))
		}
	}
	return list
}

// closure is what modules need, themselves included, in order.
func (f files) closure(start ...string) []string {
	seen := map[string]bool{}
	var walk func(string)
	walk = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		for _, m := range staticLine.FindAllSubmatch(f[name], -1) {
			walk(path.Join(path.Dir(name), string(m[1])))
		}
	}
	for _, s := range start {
		walk(s)
	}
	delete(seen, "app.js") // the page names it itself
	return slices.Sorted(maps.Keys(seen))
}

// write puts everything into dist, with what is compressible compressed.
func (f files) write(dist string, routes []web.Route) error {
	names := slices.Sorted(maps.Keys(f))
	sum := sha256.New()
	for _, name := range names {
		one := sha256.Sum256(f[name])
		fmt.Fprintf(sum, "%s %x\n", name, one)
	}
	m := web.Manifest{Build: hex.EncodeToString(sum.Sum(nil))[:12], Routes: routes, Files: names}
	folder := filepath.Join(dist, "files")
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	total, zipped := 0, 0
	for _, name := range names {
		to := filepath.Join(folder, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, f[name], 0o644); err != nil {
			return err
		}
		total += len(f[name])
		if path.Ext(name) == ".woff2" { // is compressed already
			zipped += len(f[name])
			continue
		}
		zip, broad, err := packed(f[name])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		zipped += len(zip)
		if err := os.WriteFile(to+".gz", zip, 0o644); err != nil {
			return err
		}
		if err := os.WriteFile(to+".br", broad, 0o644); err != nil {
			return err
		}
	}
	text, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	fmt.Printf("web: build %s, %d files, %d KB, %d KB gzip\n", m.Build, len(names), total/1000, zipped/1000)
	return os.WriteFile(filepath.Join(dist, "manifest.json"), text, 0o644)
}

func packed(text []byte) (zip, broad []byte, err error) {
	var g, b bytes.Buffer
	w, err := gzip.NewWriterLevel(&g, gzip.BestCompression)
	if err != nil {
		return nil, nil, err
	}
	if _, err = w.Write(text); err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, nil, err
	}
	bw := brotli.NewWriterLevel(&b, brotli.BestCompression)
	if _, err = bw.Write(text); err == nil {
		err = bw.Close()
	}
	return g.Bytes(), b.Bytes(), err
}
