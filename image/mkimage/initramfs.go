package main

import (
	"bytes"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// entry is one file of the initramfs.
type entry struct {
	name string // without a leading slash
	mode uint32 // type and permissions
	data []byte
	// rdev of a device node
	major, minor uint32
}

const (
	modeDir  = 0o040755
	modeFile = 0o100644
	modeExec = 0o100755
	modeLink = 0o120777
	modeChar = 0o020600
)

// cpio packs entries in the order given, in the newc format that the kernel
// reads (Documentation/driver-api/early-userspace/buffer-format.rst).
func cpio(entries []entry) []byte {
	var b bytes.Buffer
	write := func(ino int, e entry) {
		links := 1
		if e.mode&0o170000 == 0o040000 {
			links = 2
		}
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
			ino, e.mode, 0, 0, links, 0, len(e.data), 0, 0, e.major, e.minor, len(e.name)+1, 0)
		b.WriteString(e.name)
		b.WriteByte(0)
		pad4(&b)
		b.Write(e.data)
		pad4(&b)
	}
	for i, e := range entries {
		write(i+1, e)
	}
	write(0, entry{name: "TRAILER!!!"})
	return b.Bytes()
}

func pad4(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}

// compress packs with zstd so that the same bytes become the same bytes.
func compress(data []byte) ([]byte, error) {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(8<<20))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return w.EncodeAll(data, nil), nil
}

// initramfs is the whole user space: the binary as init, modules and what the
// image knows of itself.
func initramfs(binary []byte, modules []*module, files map[string][]byte) ([]byte, error) {
	all := []entry{
		{name: "dev", mode: modeDir},
		{name: "proc", mode: modeDir},
		{name: "sys", mode: modeDir},
		{name: "run", mode: modeDir},
		{name: "tmp", mode: 0o041777},
		{name: "etc", mode: modeDir},
		{name: "lib", mode: modeDir},
		{name: "lib/modules", mode: modeDir},
		{name: "lib/patronus", mode: modeDir},
		{name: "sbin", mode: modeDir},
		{name: "boot", mode: modeDir},
		{name: "media", mode: modeDir},
		{name: "var", mode: modeDir},
		{name: "var/lib", mode: modeDir},
		{name: "var/lib/patronus", mode: modeDir},
		// What a configuration keeps in /etc/patronus outlives a restart.
		{name: "etc/patronus", mode: modeLink, data: []byte("/var/lib/patronus/etc")},
		{name: "dev/console", mode: modeChar, major: 5, minor: 1},
		{name: "init", mode: modeExec, data: binary},
		// The kernel asks this for file systems and ciphers that it lacks.
		{name: "sbin/modprobe", mode: modeLink, data: []byte("/init")},
	}
	for _, name := range sorted(files) {
		all = append(all, entry{name: name, mode: modeFile, data: files[name]})
	}
	for _, m := range modules {
		all = append(all, entry{name: "lib/modules/" + m.name + ".ko", mode: modeFile, data: m.data})
	}
	all = append(all, entry{name: "lib/modules/index", mode: modeFile, data: moduleIndex(modules)})
	return compress(cpio(all))
}
