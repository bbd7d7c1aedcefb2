// Command bench measures gateways side by side; see package bench. It needs
// root, iproute2, iperf3 and the WireGuard tools.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"patronus/e2e/bench"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	patronus := flag.String("patronus", "bin/patronus", "the program under test")
	other := flag.String("other", "", "a second build of patronus, measured in rows of its own")
	rivals := flag.String("rivals", "e2e/out/bin", "directory of the rivals' programs")
	out := flag.String("out", "e2e/out", "directory for bench.md and bench.json")
	rounds := flag.Int("rounds", 5, "how often each row is measured")
	only := flag.String("only", "", "names of rows, with commas between them (default: all)")
	profile := flag.String("profile", "", "instead of measuring, profile both edges of this row under -load")
	load := flag.String("load", "tcp", "tcp, small (UDP of 200 bytes) or ping")
	hold := flag.Bool("hold", false, "instead of measuring, build the rows of -only and keep them until interrupted")
	curves := flag.Bool("curves", false, "instead of measuring, make curves of the output of go test -bench on standard input")
	flag.Parse()
	if *curves {
		return bench.Curves(os.Stdin, os.Stdout)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	program, err := filepath.Abs(*patronus)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(*rivals)
	if err != nil {
		return err
	}
	if *other != "" {
		if *other, err = filepath.Abs(*other); err != nil {
			return err
		}
	}
	o := bench.Options{
		Binaries: bench.Binaries{Patronus: program, Rivals: dir, Other: *other}, Rounds: *rounds,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Logs: os.Stderr,
	}
	if *only != "" {
		o.Only = strings.Split(*only, ",")
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	if *hold {
		return bench.Hold(ctx, o, os.Stdout)
	}
	if *profile != "" {
		return bench.Profile(ctx, o, *profile, bench.Load(*load), *out)
	}
	r, err := bench.Run(ctx, o)
	if err != nil {
		return err
	}
	return write(r, *out)
}

// write prints the report and keeps it, with all values beside it.
func write(r *bench.Result, dir string) error {
	text := r.Markdown()
	fmt.Print(text)
	if err := os.WriteFile(filepath.Join(dir, "bench.md"), []byte(text), 0o644); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "bench.json"))
	if err != nil {
		return err
	}
	if err := r.WriteJSON(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
