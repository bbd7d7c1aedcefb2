package vnet

import (
	"flag"
	"io"
	"os"
	"path/filepath"
)

// TB is what [OnFailure] needs of a testing.T.
type TB interface {
	Helper()
	Cleanup(func())
	Failed() bool
	Logf(format string, args ...any)
	ArtifactDir() string
}

// OnFailure writes network.pcap and sequence.mmd when the test has failed by its
// end, and logs where: the test's artifact directory if the test run keeps one
// (go test -artifacts), otherwise a new temporary directory.
func OnFailure(t TB, n *Network) {
	t.Helper()
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		dir, err := failureDir(t)
		if err != nil {
			t.Logf("no pictures of the network: %v", err)
			return
		}
		for name, write := range map[string]func(io.Writer) error{
			"network.pcap": n.WritePcap,
			"sequence.mmd": func(w io.Writer) error { return n.WriteSequence(w, 0) },
		} {
			path := filepath.Join(dir, name)
			if err := writeFile(path, write); err != nil {
				t.Logf("%s: %v", path, err)
				continue
			}
			t.Logf("the network's last datagrams are in %s", path)
		}
	})
}

// failureDir does not use a plain ArtifactDir: that is removed after the test.
func failureDir(t TB) (string, error) {
	if f := flag.Lookup("test.artifacts"); f != nil && f.Value.String() == "true" {
		return t.ArtifactDir(), nil
	}
	return os.MkdirTemp("", "vnet-failure-")
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		_ = f.Close() // the first error says more
		return err
	}
	return f.Close()
}
