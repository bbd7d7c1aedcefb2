package bench

import (
	"bufio"
	"fmt"
	"hash/fnv"
	"html"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// frame is a function in the tree of stacks.
type frame struct {
	name  string
	total time.Duration
	calls map[string]*frame
}

func (f *frame) call(name string) *frame {
	c := f.calls[name]
	if c == nil {
		c = &frame{name: name, calls: map[string]*frame{}}
		f.calls[name] = c
	}
	return c
}

func (f *frame) depth() int {
	d := 0
	for _, c := range f.calls {
		d = max(d, c.depth())
	}
	return d + 1
}

// parseTraces reads what go tool pprof -traces prints: stacks, innermost
// function first, with the time before the first one, and lines between them.
func parseTraces(in io.Reader) (*frame, error) {
	root := &frame{name: "all", calls: map[string]*frame{}}
	var stack []string
	var spent time.Duration
	flush := func() {
		if len(stack) == 0 {
			return
		}
		at := root
		at.total += spent
		for _, name := range slices.Backward(stack) {
			at = at.call(name)
			at.total += spent
		}
		stack, spent = nil, 0
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch first, rest, ok := strings.Cut(line, " "); {
		case strings.HasPrefix(line, "-----------+"):
			flush()
		case line == "":
		case len(stack) > 0:
			stack = append(stack, line)
		case ok:
			// Anything but a time is one of the lines before the first stack.
			if d, err := time.ParseDuration(first); err == nil {
				spent = d
				stack = append(stack, strings.TrimSpace(rest))
			}
		}
	}
	flush()
	return root, lines.Err()
}

const (
	flameWidth = 1400.0
	flameRow   = 17.0
	flameLeast = 0.4 // narrower frames are left out, pixels
)

// Flame writes a flame graph as SVG, outermost functions at the bottom: the
// wider a frame, the more of the time its function and what it called took.
func Flame(traces io.Reader, title string, out io.Writer) error {
	root, err := parseTraces(traces)
	if err != nil {
		return err
	}
	if root.total == 0 {
		return fmt.Errorf("flame graph %s: no samples", title)
	}
	height := flameRow * float64(root.depth()+2)
	b := bufio.NewWriter(out)
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" font-family="monospace" font-size="11">`+"\n", flameWidth, height)
	fmt.Fprintf(b, `<text x="4" y="13">%s, %v of CPU</text>`+"\n", html.EscapeString(title), root.total)
	root.draw(b, root.total, 0, height-flameRow)
	fmt.Fprintln(b, "</svg>")
	return b.Flush()
}

func (f *frame) draw(b io.Writer, all time.Duration, x, y float64) {
	width := flameWidth * float64(f.total) / float64(all)
	if width < flameLeast {
		return
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(f.name)) // never fails
	label := ""
	if n := int(width / 6.7); n > 3 {
		label = f.name[:min(n, len(f.name))]
	}
	fmt.Fprintf(b, `<g><title>%s: %v, %.1f %%</title><rect x="%.1f" y="%.0f" width="%.1f" height="%.0f" fill="hsl(%d,75%%,65%%)" stroke="white" stroke-width="0.4"/><text x="%.1f" y="%.0f">%s</text></g>`+"\n",
		html.EscapeString(f.name), f.total, 100*float64(f.total)/float64(all), x, y, width, flameRow-1, 10+h.Sum32()%45, x+2, y+12, html.EscapeString(label))
	for _, name := range slices.Sorted(maps.Keys(f.calls)) {
		c := f.calls[name]
		c.draw(b, all, x, y-flameRow)
		x += flameWidth * float64(c.total) / float64(all)
	}
}
