package main

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed debian.lock
var lockText string

// debian gets packages of one architecture with a package database of our own,
// so that neither root nor the machine's own configuration is needed. apt
// verifies the signatures of the archive.
type debian struct {
	dir, arch string
	updated   bool
	say       func(format string, args ...any)
}

// deb is one package as it was taken.
type deb struct{ name, version, sha256, file string }

const sources = `deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security bookworm-security main
`

func (d *debian) apt(tool string, args ...string) ([]byte, error) {
	base := filepath.Join(d.dir, "apt-"+d.arch)
	all := append([]string{
		"-o", "APT::Architecture=" + d.arch, "-o", "APT::Architectures=" + d.arch,
		"-o", "Dir::State=" + base, "-o", "Dir::State::status=" + filepath.Join(base, "status"),
		"-o", "Dir::Cache=" + filepath.Join(base, "cache"),
		"-o", "Dir::Etc::sourcelist=" + filepath.Join(base, "sources.list"), "-o", "Dir::Etc::sourceparts=-",
		"-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3", "-o", "APT::Sandbox::User=", "-qq",
	}, args...)
	cmd := exec.Command(tool, all...)
	cmd.Dir = d.dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", tool, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

// update reads the archive's lists, once.
func (d *debian) update() error {
	if d.updated {
		return nil
	}
	base := filepath.Join(d.dir, "apt-"+d.arch)
	for _, sub := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(base, sub), 0o755); err != nil {
			return fmt.Errorf("package lists: %w", err)
		}
	}
	for name, text := range map[string]string{"status": "", "sources.list": sources} {
		if err := os.WriteFile(filepath.Join(base, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("package lists: %w", err)
		}
	}
	d.say("reading Debian's package lists for %s", d.arch)
	if _, err := d.apt("apt-get", "update"); err != nil {
		return err
	}
	d.updated = true
	return nil
}

// locked is the package that debian.lock names for a purpose, such as
// "kernel-generic".
func (d *debian) locked(purpose string) (deb, bool) {
	for line := range strings.Lines(lockText) {
		f := strings.Fields(line)
		if len(f) == 5 && f[0] == d.arch && f[1] == purpose {
			return deb{name: f[2], version: f[3], sha256: f[4]}, true
		}
	}
	return deb{}, false
}

// take brings the package of a purpose: the locked one, or, once the mirror
// has dropped that, the newest, which is said.
func (d *debian) take(purpose, meta string) (deb, error) {
	if p, ok := d.locked(purpose); ok {
		err := d.download(&p)
		if err == nil {
			return p, nil
		}
		d.say("debian.lock names %s %s, which cannot be had (%v): taking the newest; the result differs from other builds", p.name, p.version, err)
	}
	if err := d.update(); err != nil {
		return deb{}, err
	}
	name := meta
	if strings.HasPrefix(purpose, "kernel") {
		depends, err := d.field(meta, "Depends")
		if err != nil {
			return deb{}, err
		}
		name, _, _ = strings.Cut(depends, " ")
	}
	version, err := d.field(name, "Version")
	if err != nil {
		return deb{}, err
	}
	p := deb{name: name, version: version}
	if err := d.download(&p); err != nil {
		return deb{}, err
	}
	return p, nil
}

func (d *debian) field(name, field string) (string, error) {
	out, err := d.apt("apt-cache", "show", "--no-all-versions", name)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(out)) {
		if v, ok := strings.CutPrefix(line, field+": "); ok {
			return strings.TrimSpace(v), nil
		}
	}
	return "", fmt.Errorf("package %s has no field %s", name, field)
}

// download brings one version, from the cache if it is there. A package
// without a checksum gets the one that apt has verified.
func (d *debian) download(p *deb) error {
	p.file = filepath.Join(d.dir, fmt.Sprintf("%s_%s_%s.deb", p.name, strings.ReplaceAll(p.version, ":", "%3a"), d.arch))
	if _, err := os.Stat(p.file); err != nil {
		if err := d.update(); err != nil {
			return err
		}
		d.say("fetching %s %s for %s", p.name, p.version, d.arch)
		if _, err := d.apt("apt-get", "download", p.name+"="+p.version); err != nil {
			return err
		}
	}
	data, err := os.ReadFile(p.file)
	if err != nil {
		return fmt.Errorf("package %s: %w", p.name, err)
	}
	sum := sha256.Sum256(data)
	if got := hex.EncodeToString(sum[:]); p.sha256 == "" {
		p.sha256 = got
	} else if p.sha256 != got {
		return fmt.Errorf("package %s: checksum %s, not %s as debian.lock says", p.file, got, p.sha256)
	}
	return nil
}

// unpack extracts a package into a directory of its own and returns it.
func (d *debian) unpack(p deb) (string, error) {
	dir := strings.TrimSuffix(p.file, ".deb")
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if out, err := exec.Command("dpkg-deb", "-x", p.file, dir+".new").CombinedOutput(); err != nil {
		return "", fmt.Errorf("unpack %s: %w: %s", p.name, err, out)
	}
	if err := os.Rename(dir+".new", dir); err != nil {
		return "", fmt.Errorf("unpack %s: %w", p.name, err)
	}
	return dir, nil
}
