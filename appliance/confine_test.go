package appliance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// confinedChild confines this process and tells on standard output what it can
// still do.
func confinedChild(dir string) int {
	if err := confine(dir); err != nil {
		fmt.Println("confine:", err)
		return 1
	}
	try := func(name string, f func() error) {
		err := f()
		switch {
		case err == nil:
			fmt.Println(name, "yes")
		case errors.Is(err, fs.ErrPermission):
			fmt.Println(name, "no")
		default:
			fmt.Println(name, err)
		}
	}
	read := func(file string) func() error { return func() error { _, err := os.ReadFile(file); return err } }
	try("key", read(filepath.Join(dir, "edge", "wan0.key")))
	try("own-write", func() error { return os.WriteFile(filepath.Join(dir, "node", "x"), nil, 0o600) })
	try("own-read", read(filepath.Join(dir, "node", "x")))
	try("escape", func() error { return os.WriteFile(filepath.Join(dir, "y"), nil, 0o600) })
	try("passwd", read("/etc/passwd"))
	try("run", func() error { return os.WriteFile(filepath.Join(dir, "run", "s"), nil, 0o600) })
	return 0
}

// The node sees its own directory and no keys, even as root.
func TestConfine(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"edge", "run"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "edge", "wan0.key"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), confineVariable+"="+dir)
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "operation not supported") {
		t.Skip("the runtime cannot speak for all threads of a binary with cgo: run with CGO_ENABLED=0")
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if strings.Contains(string(out), "key yes") && strings.Contains(string(out), "passwd yes") {
		t.Skip("this kernel has no Landlock")
	}
	want := "key no\nown-write yes\nown-read yes\nescape no\npasswd no\nrun yes\n"
	if string(out) != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}
