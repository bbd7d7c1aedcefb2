// Command patronus is the SD-WAN appliance; patronus --help lists its commands.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	_ "golang.org/x/crypto/x509roots/fallback"

	"patronus/appliance/cli"
	"patronus/image/pid1"
)

func main() {
	// Started by the kernel, from an image: as the first process, or for a module.
	switch {
	case pid1.IsModprobe(os.Args):
		os.Exit(pid1.Modprobe(os.Args[1:]))
	case pid1.Wanted(os.Args):
		fmt.Fprintln(os.Stderr, "patronus:", pid1.Run(cli.NewGateway("/var/lib/patronus")))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	_, err := unix.IoctlGetTermios(int(os.Stdout.Fd()), unix.TCGETS)
	code := cli.Main(ctx, cli.Env{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Terminal: err == nil, Reload: reload,
	})
	stop()
	os.Exit(code)
}
