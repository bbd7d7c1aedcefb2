package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// readQCOW2 is a reader of what writeQCOW2 writes, for a second opinion.
func readQCOW2(t *testing.T, b []byte) []byte {
	t.Helper()
	be := binary.BigEndian
	if string(b[:4]) != "QFI\xfb" || be.Uint32(b[4:]) != 3 {
		t.Fatal("not qcow2 version 3")
	}
	out := make([]byte, be.Uint64(b[24:]))
	l1 := b[be.Uint64(b[40:]):]
	counts := b[be.Uint64(b[be.Uint64(b[48:]):]):]
	const offset = 1<<56 - 1<<9
	for i := int64(0); i*cluster < int64(len(out)); i++ {
		l2 := b[be.Uint64(l1[i/(cluster/8)*8:])&offset:]
		at := be.Uint64(l2[i%(cluster/8)*8:]) & offset
		if at == 0 {
			continue
		}
		if n := be.Uint16(counts[at/cluster*2:]); n != 1 {
			t.Errorf("cluster at %#x is counted %d times", at, n)
		}
		copy(out[i*cluster:], b[at:min(at+cluster, uint64(len(b)))])
	}
	return out
}

func TestQCOW2(t *testing.T) {
	raw := make([]byte, 9*cluster+512)
	copy(raw[3*cluster+5:], "some data")
	copy(raw[9*cluster:], "the last one")
	dir := t.TempDir()
	in, out := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
	if err := os.WriteFile(in, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeQCOW2(out, in); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readQCOW2(t, b), raw) {
		t.Error("it reads back differently")
	}
	if len(b) > 8*cluster {
		t.Errorf("%d clusters for two of data", len(b)/cluster)
	}
}

func TestCPIO(t *testing.T) {
	got := cpio([]entry{{name: "dev", mode: modeDir}, {name: "init", mode: modeExec, data: []byte("12345")}})
	want := "070701000000010000" + "41ed0000000000000000000000020000000000000000000000000000000000000000000000000000000400000000dev\x00\x00\x00" +
		"0707010000000200" + "0081ed0000000000000000000000010000000000000005000000000000000000000000000000000000000500000000init\x00\x00" + "12345\x00\x00\x00"
	if !strings.HasPrefix(string(got), want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	if len(got)%4 != 0 || !bytes.Contains(got, []byte("TRAILER!!!")) {
		t.Errorf("%d bytes, no proper end", len(got))
	}
}

// The container has what it must have, and nothing else.
func TestOCI(t *testing.T) {
	file := filepath.Join(t.TempDir(), "oci.tar")
	if err := writeOCI(file, []byte("the binary"), "arm64", "v1", 1780000000); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeOCI(file, []byte("the binary"), "arm64", "v1", 1780000000); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(file); err != nil || !bytes.Equal(first, again) {
		t.Error("two builds differ", err)
	}
	blobs := untar(t, bytes.NewReader(first))
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	var manifest struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	var config struct {
		Architecture string          `json:"architecture"`
		Config       containerConfig `json:"config"`
	}
	blob := func(d descriptor) []byte { return blobs["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")].data }
	for _, err := range []error{
		json.Unmarshal(blobs["index.json"].data, &index), json.Unmarshal(blob(index.Manifests[0]), &manifest),
		json.Unmarshal(blob(manifest.Config), &config),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if config.Architecture != "arm64" || config.Config.User != "65532:65532" || len(manifest.Layers) != 1 {
		t.Errorf("%+v %+v", config, manifest)
	}
	z, err := gzip.NewReader(bytes.NewReader(blob(manifest.Layers[0])))
	if err != nil {
		t.Fatal(err)
	}
	root := untar(t, z)
	if d := cmp.Diff([]string{"data/", "etc/", "etc/patronus/", "patronus"}, sorted(root)); d != "" {
		t.Error(d)
	}
	if h := root["patronus"].header; h.Mode != 0o755 || h.PAXRecords["SCHILY.xattr.security.capability"] == "" {
		t.Errorf("%+v", h)
	}
	if h := root["data/"].header; h.Uid != 65532 || h.Mode != 0o700 {
		t.Errorf("%+v", h)
	}
}

type tarEntry struct {
	header *tar.Header
	data   []byte
}

func untar(t *testing.T, in io.Reader) map[string]tarEntry {
	t.Helper()
	all := map[string]tarEntry{}
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all[h.Name] = tarEntry{h, data}
	}
}

func TestModulePatterns(t *testing.T) {
	for path, want := range map[string]bool{
		"fs/ext4/ext4": true, "arch/x86/crypto/crc32c-intel": true, "drivers/net/ethernet/intel/igc/igc": true,
		"drivers/net/ethernet/intel/e1000/e1000": true, "drivers/gpu/drm/i915/i915": false, "fs/btrfs/btrfs": false, "# disks": false,
	} {
		if got := selected(path, modulePatterns); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
	index := string(moduleIndex([]*module{{name: "vfat", depends: []string{"fat"}, aliases: []string{"fs-vfat"}}, {name: "fat"}}))
	if index != "m vfat fat\na vfat fs-vfat\nm fat \n" {
		t.Errorf("%q", index)
	}
}

func TestLock(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		d := &debian{arch: arch}
		for _, purpose := range []string{"kernel-generic", "kernel-cloud", "boot"} {
			if p, ok := d.locked(purpose); !ok || len(p.sha256) != 64 {
				t.Errorf("%s %s: %+v", arch, purpose, p)
			}
		}
	}
	if _, ok := (&debian{arch: "riscv64"}).locked("boot"); ok {
		t.Error("riscv64 is locked")
	}
}
