// Command wire joins two network interfaces by a cable that can be impaired by
// JSON lines on its standard input; see package wire.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"patronus/e2e/wire"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "wire:", err)
		os.Exit(1)
	}
}

func run() error {
	a := flag.String("a", "", "one interface, as [namespace:]name")
	b := flag.String("b", "", "the other interface")
	control := flag.String("control", "", "path of a unix socket for commands; standard input otherwise")
	seed := flag.Uint64("seed", 1, "seed of all chance")
	flag.Parse()
	if *a == "" || *b == "" {
		return errors.New("both -a and -b are needed")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	w, err := wire.New(wire.Config{A: end(*a), B: end(*b), Seed: *seed, Control: *control})
	if err != nil {
		return err
	}
	if *control == "" {
		// Ends with the process: reading standard input cannot be interrupted.
		go func() {
			defer stop()
			if err := w.Control(os.Stdin, os.Stdout); err != nil {
				fmt.Fprintln(os.Stderr, "wire:", err)
			}
		}()
	}
	return w.Run(ctx)
}

func end(s string) wire.End {
	if ns, name, ok := strings.Cut(s, ":"); ok {
		return wire.End{Netns: ns, Interface: name}
	}
	return wire.End{Interface: s}
}
