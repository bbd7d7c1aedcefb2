package pid1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// consoles shows the status page on every console and obeys what is typed.
func (s *system) consoles(ctx context.Context) error {
	text, err := os.ReadFile("/sys/class/tty/console/active")
	if err != nil {
		return fmt.Errorf("consoles: %w", err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for name := range strings.FieldsSeq(string(text)) {
		screen := name == "tty0"
		if screen {
			name = "tty1"
		}
		f, err := os.OpenFile("/dev/"+name, os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			continue // a line that this machine does not have
		}
		stop := context.AfterFunc(ctx, func() { _ = f.Close() })
		defer stop()
		c := &console{out: f, screen: screen}
		wg.Go(func() { s.show(ctx, c) })
		go s.obey(ctx, c, f) // ends with the file, at the latest with the machine
	}
	return nil
}

// console is one terminal; its mutex keeps page and answers apart.
type console struct {
	mu     sync.Mutex
	out    io.Writer
	screen bool
	shown  string
}

// show draws the page whenever it has changed.
func (s *system) show(ctx context.Context, c *console) {
	for {
		f := s.board.snapshot()
		if f.Ready {
			c.draw(Page(f))
		}
		if !pause(ctx, time.Second) {
			return
		}
	}
}

func (c *console) draw(page string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if page == c.shown {
		return
	}
	c.shown = page
	if c.screen {
		// Clear, home; a serial line scrolls, so that what was shown can be read again.
		page = "\x1b[2J\x1b[H" + page
	}
	c.print(page + "> ")
}

// print ends lines as terminals want it; the kernel does so for a tty in its
// default state, which nobody has changed.
func (c *console) print(text string) { _, _ = io.WriteString(c.out, text) }

// allowed are the commands of the console. Whoever stands before the machine
// can take its disk out, and still gets no shell: there is none.
var allowed = []string{"status", "paths", "flows", "explain", "config", "image", "reload", "version"}

// obey runs what is typed.
func (s *system) obey(ctx context.Context, c *console, in io.Reader) {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if ctx.Err() != nil || !s.board.snapshot().Commands {
			continue
		}
		words := strings.Fields(lines.Text())
		if len(words) > 0 && words[0] == "patronus" {
			words = words[1:]
		}
		c.answer(s.command(ctx, c, words))
	}
}

func (c *console) answer(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.print(text + "> ")
}

// lineWriter writes to a console as its command runs.
type lineWriter struct{ c *console }

func (w lineWriter) Write(b []byte) (int, error) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	w.c.print(string(b))
	return len(b), nil
}

func (s *system) command(ctx context.Context, c *console, words []string) string {
	if len(words) == 0 {
		return Page(s.board.snapshot())
	}
	switch words[0] {
	case "log":
		return string(s.ring.last(40))
	case "reboot":
		s.stop(restart)
		return ""
	case "poweroff":
		s.stop(powerOff)
		return ""
	}
	if !slices.Contains(allowed, words[0]) {
		return "commands: " + strings.Join(allowed, " ") + " log reboot poweroff\n"
	}
	cmd := exec.Command(executable, words...)
	cmd.Args[0] = "patronus"
	cmd.Stdout, cmd.Stderr = lineWriter{c}, lineWriter{c}
	err := s.kids.run(ctx, cmd)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err.Error() + "\n"
	}
	if exit != nil {
		return fmt.Sprintf("(exit status %d)\n", exit.ExitCode())
	}
	return ""
}
