// Command mkimage builds what an appliance is installed from: a disk image, an
// update file and a container, with their bill of materials, checksums and
// signature. It needs neither root nor loop devices, and builds the same bytes
// from the same sources, packages and keys.
//
//	Debian's kernel, modules, EFI stub --+
//	bin/patronus (static) ---------------+--> initramfs --> unified kernel image --+--> disk.raw, .raw.zst, .qcow2
//	public keys, version ----------------+                                         +--> .update (signed)
//	bin/patronus ------------------------------------------------------------------+--> .oci.tar
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"patronus/image/fat"
	"patronus/image/release"
	"patronus/image/uki"
)

type options struct {
	arch, binary, init, modules, out, cache, kernel, version, key, trust, only, cmdline string
	seq                                                                                 uint64
	epoch                                                                               int64
}

func main() {
	var o options
	flag.StringVar(&o.arch, "arch", "amd64", "amd64 or arm64")
	flag.StringVar(&o.binary, "binary", "bin/patronus", "the static binary")
	flag.StringVar(&o.init, "init", "", "another program as init of the disk; default: the binary")
	flag.StringVar(&o.modules, "modules", "", "with -init: the kernel modules of the disk, patterns below kernel/ with commas between them")
	flag.StringVar(&o.out, "out", "image/out", "where to write")
	flag.StringVar(&o.cache, "cache", "image/out/cache", "where Debian's packages are kept")
	flag.StringVar(&o.kernel, "kernel", "generic", "generic (all machines) or cloud (virtual machines only)")
	flag.StringVar(&o.version, "version", "unknown", "the version that people read")
	flag.Uint64Var(&o.seq, "seq", 0, "the number that rises with each release; default: the time of the sources")
	flag.Int64Var(&o.epoch, "epoch", 0, "the time of the sources, Unix seconds (SOURCE_DATE_EPOCH)")
	flag.StringVar(&o.key, "key", "image/out/signing.key", "the key that signs; made if there is none")
	flag.StringVar(&o.trust, "trust", "", "a file of further public keys whose updates the image accepts")
	flag.StringVar(&o.only, "only", "", "build only some of disk,qcow2,update,oci,sbom,sums; default: all")
	flag.StringVar(&o.cmdline, "cmdline", "", "more for the kernel's command line")
	flag.Parse()
	if err := build(o); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

// consoles are where the appliance shows its status: a screen and a serial line.
func consoles(arch string) string {
	if arch == "arm64" {
		return "console=tty0 console=ttyAMA0,115200"
	}
	// On a busy hypervisor the kernel finds its timer broken, and stands still
	// before anything of ours runs.
	return "console=tty0 console=ttyS0,115200 no_timer_check"
}

func (o *options) wants(part string) bool {
	return o.only == "" || slices.Contains(strings.Split(o.only, ","), part)
}

func build(o options) error {
	efi := map[string]string{"amd64": "x64", "arm64": "aa64"}[o.arch]
	if efi == "" {
		return fmt.Errorf("no image for %s: amd64 or arm64", o.arch)
	}
	if o.epoch <= 0 {
		return errors.New("the time of the sources is needed: -epoch")
	}
	if o.seq == 0 {
		o.seq = uint64(o.epoch)
	}
	say := func(format string, args ...any) { fmt.Printf("mkimage: "+format+"\n", args...) }
	key, created, err := release.LoadOrCreateKey(o.key)
	if err != nil {
		return err
	}
	if created {
		say("made a signing key: keep %s, or give another with KEY=", o.key)
	}
	for _, dir := range []string{o.out, o.cache} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("build: %w", err)
		}
	}
	if o.cache, err = filepath.Abs(o.cache); err != nil {
		return fmt.Errorf("build: %w", err)
	}
	binary, err := os.ReadFile(o.binary)
	if err != nil {
		return fmt.Errorf("build: %w", err)
	}
	keys := release.Keys{key.Public()}
	if o.trust != "" {
		more, err := release.LoadKeys(o.trust)
		if err != nil {
			return err
		}
		keys = append(keys, more...)
	}
	trusted, err := keys.PEM()
	if err != nil {
		return err
	}
	base := "patronus-" + o.arch
	made := &artefacts{dir: o.out, epoch: o.epoch}
	if err := made.write("image.pub", trusted); err != nil {
		return err
	}
	var debs []deb
	if o.wants("disk") || o.wants("update") {
		d := &debian{dir: o.cache, arch: o.arch, say: say}
		kernel, err := d.take("kernel-"+o.kernel, map[string]string{"generic": "linux-image-" + o.arch, "cloud": "linux-image-cloud-" + o.arch}[o.kernel])
		if err != nil {
			return err
		}
		boot, err := d.take("boot", "systemd-boot-efi")
		if err != nil {
			return err
		}
		debs = []deb{kernel, boot}
		image, loader, err := o.unified(d, kernel, boot, efi, binary, trusted)
		if err != nil {
			return err
		}
		if o.wants("disk") {
			raw := filepath.Join(o.out, base+".raw")
			if err := writeDisk(raw, []fat.File{
				{Name: "EFI/BOOT/BOOT" + strings.ToUpper(efi) + ".EFI", Data: loader},
				{Name: fmt.Sprintf("EFI/Linux/patronus-%d.efi", o.seq), Data: image},
				{Name: "loader/loader.conf", Data: []byte("timeout 0\nconsole-mode keep\neditor no\n")},
				{Name: "patronus/README.txt", Data: []byte(espReadme)},
			}, o.epoch); err != nil {
				return err
			}
			if err := compressFile(raw); err != nil {
				return err
			}
			made.add(base+".raw", base+".raw.zst")
			if o.wants("qcow2") {
				if err := writeQCOW2(filepath.Join(o.out, base+".qcow2"), raw); err != nil {
					return err
				}
				made.add(base + ".qcow2")
			}
		}
		if o.wants("update") {
			var b bytes.Buffer
			if err := release.Write(&b, key, release.Info{Arch: o.arch, Version: o.version, Seq: o.seq}, image); err != nil {
				return err
			}
			if err := made.write(base+".update", b.Bytes()); err != nil {
				return err
			}
		}
	}
	if o.wants("oci") {
		if err := writeOCI(filepath.Join(o.out, base+".oci.tar"), binary, o.arch, o.version, o.epoch); err != nil {
			return err
		}
		made.add(base + ".oci.tar")
	}
	if o.wants("sbom") {
		if err := writeSBOM(filepath.Join(o.out, base+".cdx.json"), o.binary, o.version, debs, o.arch, o.epoch); err != nil {
			return err
		}
		made.add(base + ".cdx.json")
	}
	return made.finish(o, key, say)
}

// unified is the unified kernel image, and the boot loader that starts it.
func (o *options) unified(d *debian, kernel, boot deb, efi string, binary, trusted []byte) (image, loader []byte, err error) {
	kernelDir, err := d.unpack(kernel)
	if err != nil {
		return nil, nil, err
	}
	bootDir, err := d.unpack(boot)
	if err != nil {
		return nil, nil, err
	}
	release := strings.TrimPrefix(kernel.name, "linux-image-")
	init, patterns := binary, modulePatterns
	if o.init != "" {
		if init, err = os.ReadFile(o.init); err != nil {
			return nil, nil, fmt.Errorf("init: %w", err)
		}
		patterns = strings.ReplaceAll(o.modules, ",", "\n")
	}
	modules, err := selectModules(filepath.Join(kernelDir, "lib/modules", release, "kernel"), patterns)
	if err != nil {
		return nil, nil, err
	}
	self, err := json.Marshal(map[string]any{"arch": o.arch, "version": o.version, "seq": o.seq, "epoch": o.epoch, "kernel": release})
	if err != nil {
		return nil, nil, fmt.Errorf("image: %w", err)
	}
	initrd, err := initramfs(init, modules, map[string][]byte{"lib/patronus/image.json": self, "lib/patronus/image.pub": trusted})
	if err != nil {
		return nil, nil, err
	}
	linux, err := os.ReadFile(filepath.Join(kernelDir, "boot/vmlinuz-"+release))
	if err != nil {
		return nil, nil, fmt.Errorf("kernel: %w", err)
	}
	efiDir := filepath.Join(bootDir, "usr/lib/systemd/boot/efi")
	stub, err := os.ReadFile(filepath.Join(efiDir, "linux"+efi+".efi.stub"))
	if err != nil {
		return nil, nil, fmt.Errorf("EFI stub: %w", err)
	}
	if loader, err = os.ReadFile(filepath.Join(efiDir, "systemd-boot"+efi+".efi")); err != nil {
		return nil, nil, fmt.Errorf("boot loader: %w", err)
	}
	// A kernel that cannot go on starts again, so that the loader counts.
	cmdline := strings.TrimSpace(consoles(o.arch) + " panic=5 oops=panic loglevel=4 " + o.cmdline)
	osRelease := fmt.Sprintf("ID=patronus\nNAME=Patronus\nPRETTY_NAME=\"Patronus %s\"\nIMAGE_ID=patronus\nIMAGE_VERSION=%d\n", o.version, o.seq)
	image, err = uki.Build(stub, []uki.Section{
		{Name: ".osrel", Data: []byte(osRelease)},
		{Name: ".cmdline", Data: []byte(cmdline)},
		{Name: ".uname", Data: []byte(release)},
		{Name: ".initrd", Data: initrd},
		{Name: ".linux", Data: linux},
	})
	return image, loader, err
}

// artefacts are the files of a release.
type artefacts struct {
	dir   string
	epoch int64
	names []string
}

func (a *artefacts) add(names ...string) { a.names = append(a.names, names...) }

func (a *artefacts) write(name string, data []byte) error {
	if err := os.WriteFile(filepath.Join(a.dir, name), data, 0o644); err != nil {
		return fmt.Errorf("build: %w", err)
	}
	a.add(name)
	return nil
}

// finish signs the checksums and says what was made.
func (a *artefacts) finish(o options, key *release.Key, say func(string, ...any)) error {
	if o.wants("sums") {
		if err := release.WriteSums(a.dir, a.names, key); err != nil {
			return err
		}
	}
	for _, name := range a.names {
		file := filepath.Join(a.dir, name)
		if err := touch(file, a.epoch); err != nil {
			return fmt.Errorf("build: %w", err)
		}
		info, err := os.Stat(file)
		if err != nil {
			return fmt.Errorf("build: %w", err)
		}
		bar := ""
		switch {
		case strings.HasSuffix(name, ".raw.zst"):
			bar = fmt.Sprintf(" [bar 40 MB: %s]", met(info.Size() <= 40e6))
		case strings.HasSuffix(name, ".oci.tar"):
			bar = fmt.Sprintf(" [bar 25 MB: %s]", met(info.Size() <= 25e6))
		}
		say("%-28s %8.2f MB%s", file, float64(info.Size())/1e6, bar)
	}
	return nil
}

func met(ok bool) string {
	if ok {
		return "met"
	}
	return "MISSED"
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
