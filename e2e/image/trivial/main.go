// Command trivial is an init that does nothing: the measure of how long
// firmware, loader and kernel take without us, and an update that is broken,
// because the kernel panics when it ends.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func main() {
	// Without /dev there is the console that the kernel has opened for us.
	fmt.Fprintln(os.Stdout, "trivial init has started")
	unix.Sync()
}
