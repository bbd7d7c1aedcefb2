// Command benchstore measures stores side by side, and tortures ours.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"patronus/e2e/benchstore"
)

func main() {
	if benchstore.Child() {
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "benchstore:", err)
		os.Exit(1)
	}
}

func run() error {
	var size benchstore.Size
	flag.IntVar(&size.Paths, "paths", 500, "paths that all contenders hold for 24 hours")
	flag.IntVar(&size.WidePaths, "wide", 10_000, "paths that ours takes in at once")
	flag.IntVar(&size.Rounds, "rounds", 5, "rounds of questions")
	out := flag.String("out", "e2e/benchstore/RESULTS.md", "where the tables go")
	serve := flag.String("serve", "", "be the process of a contender: ours, naive")
	dir := flag.String("dir", "", "of a contender's data")
	torture := flag.Bool("torture", false, "kill 100 times, cut and flip everywhere, fill the disk; a line of JSON each")
	flag.Parse()
	if *torture {
		return benchstore.Torture(context.Background(), os.Stdout)
	}
	if *serve != "" {
		return benchstore.Serve(*serve, *dir)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r, err := benchstore.Run(filepath.Dir(self), size, os.Stderr)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := r.Markdown(&b); err != nil {
		return err
	}
	fmt.Print(b.String())
	return os.WriteFile(*out, b.Bytes(), 0o644)
}
