package house

import (
	"bytes"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// root is the top of the tree, seen from this package.
const root = "../.."

// skipped are directories that hold nothing of ours: what was built, what was
// downloaded, and fuzz corpora.
var skipped = []string{".git", "bin", "node_modules", "vendor", "out", "testdata"}

// file is one file of the tree; path is relative to the top, with slashes.
type file struct {
	path string
	text []byte
}

// source is one Go file, parsed.
type source struct {
	file
	set *token.FileSet
	ast *ast.File
}

func (s *source) test() bool { return strings.HasSuffix(s.path, "_test.go") }

func (s *source) dir() string { return path.Dir(s.path) }

func (s *source) line(n ast.Node) string {
	return s.path + ":" + strconv.Itoa(s.set.Position(n.Pos()).Line)
}

// imports are the import paths of the file.
func (s *source) imports() []string {
	var all []string
	for _, i := range s.ast.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err == nil {
			all = append(all, p)
		}
	}
	return all
}

// files reads the tree once.
var files = sync.OnceValues(func() ([]file, error) {
	var all []file
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains(skipped, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || d.Name() == ".git" {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if !bytes.Contains(text[:min(len(text), 8000)], []byte{0}) {
			all = append(all, file{filepath.ToSlash(rel), text})
		}
		return nil
	})
	return all, err
})

func tree(t *testing.T) []file {
	t.Helper()
	all, err := files()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("only %d files found below %s", len(all), root)
	}
	return all
}

// parsed parses the Go files of the tree once.
var parsed = sync.OnceValues(func() ([]*source, error) {
	all, err := files()
	if err != nil {
		return nil, err
	}
	var out []*source
	for _, f := range all {
		if path.Ext(f.path) != ".go" {
			continue
		}
		set := token.NewFileSet()
		tree, err := parser.ParseFile(set, f.path, f.text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		out = append(out, &source{f, set, tree})
	}
	return out, nil
})

func sources(t *testing.T) []*source {
	t.Helper()
	all, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// matches finds a pattern in a file, as "file:line: match".
func (f *file) matches(pattern *regexp.Regexp) (at []string) {
	for _, m := range pattern.FindAllIndex(f.text, -1) {
		line := 1 + bytes.Count(f.text[:m[0]], []byte("\n"))
		at = append(at, f.path+":"+strconv.Itoa(line)+": "+strconv.Quote(string(f.text[m[0]:m[1]])))
	}
	return at
}

func TestFormatted(t *testing.T) {
	for _, s := range sources(t) {
		want, err := format.Source(s.text)
		if err != nil {
			t.Errorf("%s: %v", s.path, err)
		} else if !bytes.Equal(want, s.text) {
			t.Errorf("%s: not formatted; run gofmt -w %s", s.path, s.path)
		}
	}
}

// maxLines is the length of a file that still has one subject.
const maxLines = 600

func TestFileSize(t *testing.T) {
	for _, s := range sources(t) {
		if bytes.HasPrefix(s.text, []byte("// Code generated ")) {
			continue
		}
		if n := bytes.Count(s.text, []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines, at most %d: which two subjects does it have?", s.path, n, maxLines)
		}
	}
}

// Every package says what it owns, in one place.
func TestPackageDocs(t *testing.T) {
	docs := map[string][]string{}
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		if _, ok := docs[s.dir()]; !ok {
			docs[s.dir()] = nil
		}
		if s.ast.Doc == nil {
			continue
		}
		docs[s.dir()] = append(docs[s.dir()], s.path)
		first, _, _ := strings.Cut(s.ast.Doc.Text(), "\n")
		want := "Package " + s.ast.Name.Name + " "
		if s.ast.Name.Name == "main" {
			want = "Command " + path.Base(s.dir()) + " "
		}
		if !strings.HasPrefix(first, want) {
			t.Errorf("%s: the package's documentation begins %q, want %q", s.path, first, want+"...")
		}
	}
	for dir, at := range docs {
		if len(at) != 1 {
			t.Errorf("%s has %d package comments %v, want exactly one: what does it own?", dir, len(at), at)
		}
	}
}

// No package is named for what it is instead of what it owns.
func TestPackageNames(t *testing.T) {
	refused := []string{"util", "utils", "common", "types", "models", "helpers", "helper", "internal", "pkg", "misc", "shared"}
	for _, s := range sources(t) {
		for part := range strings.SplitSeq(s.dir(), "/") {
			if slices.Contains(refused, part) {
				t.Errorf("%s: a directory named %q has no subject", s.path, part)
			}
		}
	}
}

// Nothing runs before main, so that a test or a command meets no surprise.
func TestNoInit(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: func init; build values in a constructor", s.line(f))
			}
		}
	}
}

// A test waits for an event, never for a while; inside a synctest bubble time
// costs nothing and ends exactly. Product code waits with a timer and a ctx.
func TestNoSleep(t *testing.T) {
	bubbles := make(map[string]bool) // directories whose tests run in bubbles
	for _, s := range sources(t) {
		if s.test() && slices.Contains(s.imports(), "testing/synctest") {
			bubbles[s.dir()] = true
		}
	}
	for _, s := range sources(t) {
		bubble := s.test() && bubbles[s.dir()]
		ast.Inspect(s.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.SelectorExpr)
			if !ok || call.Sel.Name != "Sleep" {
				return true
			}
			if x, ok := call.X.(*ast.Ident); ok && x.Name == "time" && !bubble {
				t.Errorf("%s: time.Sleep; wait for an event, or use testing/synctest", s.line(call))
			}
			return true
		})
	}
}
