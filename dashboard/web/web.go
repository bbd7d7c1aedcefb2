package web

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
)

//go:embed all:dist
var dist embed.FS

// Prefix is where the files of the interface are, below a name of the build.
const Prefix = "/assets/"

// ErrNotBuilt: the binary was compiled without `make web` before.
var ErrNotBuilt = errors.New("the interface is not built in: run make web, then build again")

// Manifest says what a build has. Package pack writes it.
type Manifest struct {
	// Build names the build by the content of all of its files.
	Build  string   `json:"build"`
	Routes []Route  `json:"routes"`
	Files  []string `json:"files"` // relative to the build's URL
}

// Route is a page: its path, and the modules that a browser needs to show it.
type Route struct {
	Path    string   `json:"path"` // with :id for any one part
	Modules []string `json:"modules"`
}

// Answer is a file as it is sent. Body is borrowed: it must not change.
type Answer struct {
	Status   int
	Type     string // Content-Type
	Encoding string // Content-Encoding, "" for none
	Cache    string // Cache-Control
	Tag      string // ETag
	// Part: the file is a part of a page, and headers that tell a browser how to
	// run a page of its own say nothing about it. Workers are no parts.
	Part bool
	Body []byte
}

// Pages are the interface, ready to be sent.
type Pages struct {
	manifest Manifest
	files    map[string]*file // by path below the build's URL
	shells   []shell
	missing  *file // the shell of no page in particular
}

type shell struct {
	route Route
	parts []string
	file  *file
}

type file struct {
	kind              string
	part              bool
	plain, zip, broad []byte // as it is, gzip, brotli; nil for none
}

// Open reads the interface that is compiled in, or fails with [ErrNotBuilt].
func Open() (*Pages, error) {
	sub, err := fs.Sub(dist, "dist")
	if err != nil {
		return nil, fmt.Errorf("interface: %w", err)
	}
	return Load(sub)
}

// Load reads a build from a folder.
func Load(from fs.FS) (*Pages, error) {
	text, err := fs.ReadFile(from, "manifest.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotBuilt
	}
	if err != nil {
		return nil, fmt.Errorf("interface: %w", err)
	}
	p := &Pages{files: map[string]*file{}}
	if err := json.Unmarshal(text, &p.manifest); err != nil {
		return nil, fmt.Errorf("interface: manifest: %w", err)
	}
	for _, name := range p.manifest.Files {
		f := &file{kind: contentType(name), part: isPart(name)}
		for _, part := range []struct {
			suffix string
			to     *[]byte
		}{{"", &f.plain}, {".gz", &f.zip}, {".br", &f.broad}} {
			body, err := fs.ReadFile(from, "files/"+name+part.suffix)
			if err != nil && (part.suffix == "" || !errors.Is(err, fs.ErrNotExist)) {
				return nil, fmt.Errorf("interface: %w", err)
			}
			*part.to = body
		}
		p.files[name] = f
	}
	for _, r := range p.manifest.Routes {
		f, err := p.shellOf(r)
		if err != nil {
			return nil, fmt.Errorf("interface: page %s: %w", r.Path, err)
		}
		p.shells = append(p.shells, shell{r, strings.Split(r.Path, "/"), f})
	}
	if p.missing, err = p.shellOf(Route{}); err != nil {
		return nil, fmt.Errorf("interface: %w", err)
	}
	return p, nil
}

// Manifest says what the build has; borrowed.
func (p *Pages) Manifest() Manifest { return p.manifest }

// Answer is what a GET of a path gets; accepts is its Accept-Encoding. Every
// path that names no file is a page of the interface: the pages know
// themselves which of them exist.
func (p *Pages) Answer(urlPath, accepts string) Answer {
	if rest, ok := strings.CutPrefix(urlPath, Prefix); ok {
		build, name, _ := strings.Cut(rest, "/")
		f := p.files[name]
		if f == nil || build != p.manifest.Build {
			// A page of an older build asks: it says so to its reader.
			return Answer{Status: 404, Type: "text/plain; charset=utf-8", Cache: "no-store", Body: []byte("not part of this build\n")}
		}
		return f.answer(200, accepts, "public, max-age=31536000, immutable", build)
	}
	status, f := 404, p.missing
	if urlPath == "/" {
		urlPath = "/dashboard"
	}
	if i := p.page(urlPath); i >= 0 {
		status, f = 200, p.shells[i].file
	}
	return f.answer(status, accepts, "no-cache", "")
}

// IsPage reports whether a path is that of a page.
func (p *Pages) IsPage(urlPath string) bool { return urlPath == "/" || p.page(urlPath) >= 0 }

func (p *Pages) page(urlPath string) int {
	have := strings.Split(urlPath, "/")
next:
	for i := range p.shells {
		want := p.shells[i].parts
		if len(want) != len(have) {
			continue
		}
		for j := range want {
			if want[j] != have[j] && (!strings.HasPrefix(want[j], ":") || have[j] == "") {
				continue next
			}
		}
		return i
	}
	return -1
}

func (f *file) answer(status int, accepts, cache, tag string) Answer {
	a := Answer{Status: status, Type: f.kind, Cache: cache, Part: f.part, Body: f.plain}
	if tag != "" {
		a.Tag = `"` + tag + `"`
	}
	switch {
	case f.broad != nil && accepted(accepts, "br"):
		a.Body, a.Encoding = f.broad, "br"
	case f.zip != nil && accepted(accepts, "gzip"):
		a.Body, a.Encoding = f.zip, "gzip"
	}
	return a
}

// accepted reads Accept-Encoding (RFC 9110, 12.5.3) for one coding.
func accepted(header, coding string) bool {
	for item := range strings.SplitSeq(header, ",") {
		name, weight, _ := strings.Cut(strings.TrimSpace(item), ";")
		if strings.EqualFold(strings.TrimSpace(name), coding) {
			q := strings.TrimPrefix(strings.ReplaceAll(weight, " ", ""), "q=")
			return strings.Trim(q, "0.") != "" || q == ""
		}
	}
	return false
}

// shellText is the page that every page starts as. It has no script and no
// style of its own: the content security policy allows none.
var shellText = template.Must(template.New("shell").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Patronus</title>
<link rel="icon" href="{{.At}}icon.svg" type="image/svg+xml">
<script src="{{.At}}theme.js"></script>
<link rel="stylesheet" href="{{.At}}style.css">
<link rel="preload" href="{{.At}}inter.woff2" as="font" type="font/woff2" crossorigin>
{{range .Modules}}<link rel="modulepreload" href="{{$.At}}{{.}}">
{{end}}<script type="module" src="{{.At}}app.js"></script>
</head>
<body>
<p class="boot" role="status">Patronus</p>
<noscript>This dashboard needs JavaScript. The same is to be had from the command line: patronus help.</noscript>
</body>
</html>
`))

func (p *Pages) shellOf(r Route) (*file, error) {
	var b, zip bytes.Buffer
	err := shellText.Execute(&b, struct {
		At      string
		Modules []string
	}{Prefix + p.manifest.Build + "/", r.Modules})
	if err != nil {
		return nil, err
	}
	w, err := gzip.NewWriterLevel(&zip, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return &file{kind: contentType("x.html"), plain: b.Bytes(), zip: zip.Bytes()}, nil
}

// isPart is for files that only a page loads.
func isPart(name string) bool {
	switch path.Ext(name) {
	case ".js":
		return !strings.HasSuffix(name, ".worker.js")
	case ".css", ".woff2":
		return true
	}
	return false
}

func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".woff2":
		return "font/woff2"
	case ".json":
		return "application/json"
	case ".md", ".txt", ".yaml":
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}
