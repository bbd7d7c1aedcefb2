package pid1

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"patronus/configs"
	"patronus/image/provision"
	"patronus/image/release"
	"patronus/image/slot"
)

// boot brings the machine to where the tasks can run. A step that fails is
// shown and the next one is tried: a status page that says what is wrong is
// worth more than a machine that stands still.
func (s *system) boot(ctx context.Context) {
	began := time.Now()
	image, err := s.paths.LoadImage()
	s.report("image", err)
	text, err := os.ReadFile(filepath.Join(modulesDir, "index"))
	s.report("kernel modules", err)
	s.modules = parseModules(text, loadModule)
	s.board.set(func(f *Facts) { f.Version, f.Seq, f.Arch = image.Version, image.Seq, image.Arch })
	for _, name := range []string{"crc32c_generic", "crc32c_intel", "ext4", "vfat", "nls_cp437", "nls_ascii", "button", "evdev", "qemu_fw_cfg"} {
		_ = s.modules.add(name) // built in, or for another processor
	}
	s.modules.coldplug()
	// Only now: the watchdog takes the kernel's own where no device has one.
	s.board.set(func(f *Facts) { f.Booted = true })
	s.log.Debug("devices have their modules", "dur", time.Since(began))

	s.report("EFI partition", s.openESP(ctx))
	s.report("data partition", s.openData(ctx))
	if image.Epoch > 0 {
		s.report("clock", setClock(image.Epoch))
	}
	for _, sysctl := range []struct{ name, value string }{
		// Several uplinks with a default route each: an answer may come in where
		// the kernel would not have sent the question.
		{"net/ipv4/conf/all/rp_filter", "2"},
		{"net/ipv4/conf/default/rp_filter", "2"},
		{"net/core/rmem_max", "8388608"},
		{"net/core/wmem_max", "8388608"},
		{"kernel/printk", "4 4 1 4"},
		{"vm/panic_on_oom", "0"},
	} {
		s.report(sysctl.name, os.WriteFile("/proc/sys/"+sysctl.name, []byte(sysctl.value), 0))
	}
	s.log.Debug("partitions are mounted", "dur", time.Since(began))
	s.report("slots", s.openSlots())
	s.report("provisioning", s.provision())
	s.report("update from a volume", s.updateFromVolume(ctx))
	s.board.set(func(f *Facts) { f.Ready = true })
	s.log.Info("the machine is ready", "dur", time.Since(began))
}

func (s *system) openESP(ctx context.Context) error {
	b, err := findPartition(ctx, espName, 10*time.Second)
	if err != nil {
		return err
	}
	return mountESP(b, s.paths.ESP)
}

func (s *system) openData(ctx context.Context) error {
	b, err := findPartition(ctx, dataName, 10*time.Second)
	if err != nil {
		return err
	}
	// A disk that cannot be grown still works.
	s.report("grow the data partition", growData(b))
	if err := mountData(b); err != nil {
		return err
	}
	// The node, which is another user, passes through to its own directory.
	for dir, mode := range map[string]os.FileMode{dataDir: 0o711, filepath.Join(dataDir, "etc"): 0o700} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return err
		}
		if err := os.Chmod(dir, mode); err != nil {
			return err
		}
	}
	s.board.set(func(f *Facts) { f.Data = true })
	return nil
}

// openSlots looks at how this image was started.
func (s *system) openSlots() error {
	return s.paths.Locked(func() error {
		m, err := s.paths.Machine()
		if err != nil {
			return err
		}
		trial, err := m.Tidy()
		if err != nil {
			return err
		}
		if trial {
			var expect slot.Expectation
			if m.State.Trial != nil {
				expect = m.State.Trial.Expect
			}
			s.judge = slot.NewJudge(expect, time.Now())
		} else if err := m.Bless(); err != nil {
			return err
		}
		s.board.set(func(f *Facts) { f.Trial, f.Failed = trial, m.State.Failed })
		return nil
	})
}

// provision takes what the machine was given: a configuration that is new, the
// addresses of interfaces, a token.
func (s *system) provision() error {
	espDir := filepath.Join(s.paths.ESP, "patronus")
	esp, err := provision.FromDir("EFI partition", os.DirFS(espDir))
	problems := err
	var volume provision.Found
	problems = errors.Join(problems, withVolumes([]string{"cidata"}, func(dir string) error {
		f, err := provision.FromNoCloud(os.DirFS(dir))
		if volume.Empty() {
			volume = f
		}
		return err
	}))
	credentials := provision.Credentials{}
	if table, err := os.ReadFile("/sys/firmware/dmi/tables/DMI"); err == nil {
		credentials = provision.FromSMBIOS(table)
	}
	for _, name := range []string{"patronus.config", "patronus.network", "patronus.token"} {
		if data, err := os.ReadFile("/sys/firmware/qemu_fw_cfg/by_name/opt/io.systemd.credentials/" + name + "/raw"); err == nil {
			credentials[name] = data
		}
	}
	line, err := os.ReadFile("/proc/cmdline")
	problems = errors.Join(problems, err)
	s.board.set(func(f *Facts) { f.Commands = !strings.Contains(string(line), "patronus.console=off") })
	cmdline, err := provision.FromCommandLine(string(line))
	problems = errors.Join(problems, err)
	if !s.board.snapshot().Data {
		return errors.Join(problems, errors.New("nothing is kept without a data partition"))
	}
	found := provision.First(esp, volume, credentials.Found("machine credentials"), cmdline)
	return errors.Join(problems, s.keep(found), s.takeToken(found, espDir))
}

// keep stores a configuration that was not there the last time, so that what
// the operator changes at its source is taken, and what changed here since is
// not undone by a source that stands still.
func (s *system) keep(found provision.Found) error {
	if len(found.Network) > 0 {
		if _, err := provision.ParseNetwork(found.Network); err != nil {
			return fmt.Errorf("%s: %w", found.Source, err)
		}
		if err := replaceFile(filepath.Join(dataDir, "etc", provision.NetworkFile), found.Network); err != nil {
			return err
		}
	}
	if len(found.Config) == 0 {
		return nil
	}
	sum := sha256.Sum256(found.Config)
	mark, markFile := hex.EncodeToString(sum[:])+"\n", filepath.Join(dataDir, "etc", "provisioned")
	if old, err := os.ReadFile(markFile); err == nil && string(old) == mark {
		return nil
	}
	if _, err := configs.Parse(provision.ConfigFile, found.Config); err != nil {
		return fmt.Errorf("%s: %w", found.Source, err)
	}
	if err := replaceFile(configFile, found.Config); err != nil {
		return err
	}
	s.log.Info("configuration taken", "from", found.Source)
	return replaceFile(markFile, []byte(mark))
}

// takeToken keeps a token, and removes it from where everybody can read it.
func (s *system) takeToken(found provision.Found, espDir string) error {
	if found.Token == "" {
		return nil
	}
	if err := replaceFile(tokenFile, []byte(string(found.Token)+"\n")); err != nil {
		return err
	}
	s.log.Info("enrollment token taken", "from", found.Source)
	file := filepath.Join(espDir, provision.TokenFile)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return s.paths.Locked(func() error { return os.Remove(file) })
}

// replaceFile puts text in the place of file as a whole, readable by us alone.
func replaceFile(file string, text []byte) error {
	f, err := os.OpenFile(file+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	unix.Sync()
	return nil
}

// updateFromVolume installs an update file that lies on a plugged-in volume
// (label PATRONUS or cidata), if it is newer, and restarts.
func (s *system) updateFromVolume(ctx context.Context) error {
	return withVolumes([]string{"patronus", "cidata"}, func(dir string) error {
		files, err := filepath.Glob(filepath.Join(dir, "*.update"))
		if err != nil || len(files) == 0 {
			return err
		}
		f, err := os.Open(files[0])
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		return s.paths.Locked(func() error {
			m, err := s.paths.Machine()
			if err != nil {
				return err
			}
			manifest, err := m.Install(ctx, f, slot.Options{
				Tries: 3, NotAgain: true, Now: time.Now(), Expect: slot.Expectation{Configured: configured()},
			})
			if errors.Is(err, release.ErrOlder) {
				return nil // the stick was left in
			}
			if err != nil {
				return fmt.Errorf("%s: %w", filepath.Base(files[0]), err)
			}
			s.log.Info("update installed from a volume", "to", manifest.Version)
			s.stop(restart)
			return nil
		})
	})
}
