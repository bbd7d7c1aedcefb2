package pid1

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"patronus/configs"
	"patronus/image/slot"
)

// runGateway runs `patronus run` and runs it again when it ends.
func (s *system) runGateway(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.network: // a packet port needs its interface
	}
	wait := time.Second
	for {
		args := runArguments(configFile, tokenFile, enrolledFile)
		if args == nil {
			if !pause(ctx, 2*time.Second) {
				return ctx.Err()
			}
			continue
		}
		if args[0] == "--config" {
			s.report("keys", s.uplinkKeys())
		}
		cmd := exec.Command(executable, append([]string{"run", "--data-dir", dataDir}, args...)...)
		cmd.Args[0] = "patronus"
		cmd.Stdout, cmd.Stderr = s.ring, s.ring
		cmd.Env = []string{"PATH=", "HOME=" + dataDir}
		started := time.Now()
		err := s.kids.run(ctx, cmd)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			err = errors.New("it ended without being asked to")
		}
		last := strings.TrimSpace(string(s.ring.last(1)))
		s.report("gateway", fmt.Errorf("%w: %s", err, last))
		if time.Since(started) > time.Minute {
			wait = time.Second
		}
		if !pause(ctx, wait) {
			return ctx.Err()
		}
		wait = min(2*wait, 30*time.Second)
	}
}

// runArguments are those of `patronus run`: a configuration of the site's own,
// or what an enrollment has left, or a token to enroll by; nil if there is
// nothing to begin with.
func runArguments(config, token, enrolled string) []string {
	exists := func(file string) bool {
		_, err := os.Stat(file)
		return err == nil
	}
	switch {
	case exists(config):
		return []string{"--config", config}
	case exists(enrolled), exists(token):
		return []string{"--token-file", token}
	}
	return nil
}

// configured reports whether the machine has been told what to be.
func configured() bool {
	return runArguments(configFile, "", enrolledFile) != nil
}

func keyFile(iface string) string { return filepath.Join(dataDir, "etc", iface+".key") }

// keyFor makes the key of an interface at the first boot. It is made here, and
// only its public half ever leaves.
func (s *system) keyFor(iface string) error {
	if !s.board.snapshot().Data {
		return nil // a key in memory would be another one tomorrow
	}
	return makeKey(keyFile(iface))
}

func makeKey(file string) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	return configs.GenerateKey().WriteFile(file)
}

func keyOf(iface string) string {
	k, err := configs.LoadPrivateKey(keyFile(iface))
	if err != nil {
		return ""
	}
	return k.Public().String()
}

// uplinkKeys makes the keys that the configuration names and that are not
// there, and says which ones the configuration does not know.
func (s *system) uplinkKeys() error {
	text, err := os.ReadFile(configFile)
	if err != nil {
		return err
	}
	cfg, err := configs.Parse(configFile, text)
	if err != nil {
		return err
	}
	var bad error
	for _, u := range cfg.Self().Uplinks {
		if err := makeKey(u.PrivateKeyFile); err != nil {
			bad = errors.Join(bad, err)
			continue
		}
		k, err := configs.LoadPrivateKey(u.PrivateKeyFile)
		if err != nil {
			bad = errors.Join(bad, err)
			continue
		}
		if k.Public() != u.PublicKey {
			bad = errors.Join(bad, fmt.Errorf("uplink %s: this appliance's public key is %s, the configuration says %s", u.Name, k.Public(), u.PublicKey))
		}
	}
	return bad
}

// judgeImage watches an image on trial and keeps it or gives it up.
func (s *system) judgeImage(ctx context.Context) error {
	answered := time.Now()
	for {
		st, err := s.gateway.Status(ctx)
		if err == nil {
			answered = time.Now()
			s.report("gateway", nil)
		}
		s.board.set(func(f *Facts) {
			f.Configured = configured()
			if err == nil {
				f.Gateway, f.Running = st, true
			} else if time.Since(answered) > 10*time.Second {
				f.Running = false // one late answer of a busy machine is no news
			}
		})
		if s.judge != nil {
			health := slot.Health{Running: err == nil, PathsUp: st.PathsUp, Dashboard: st.Dashboard}
			what, why := s.judge.Observe(health, time.Now())
			if what != slot.Wait {
				return s.settle(what, why)
			}
			s.board.set(func(f *Facts) { f.TrialState = why })
		}
		if !pause(ctx, time.Second) {
			return ctx.Err()
		}
	}
}

// settle ends a trial.
func (s *system) settle(what slot.Judgement, why string) error {
	err := s.paths.Locked(func() error {
		m, err := s.paths.Machine()
		if err != nil {
			return err
		}
		if what == slot.Keep {
			return m.Bless()
		}
		return m.Reject(why)
	})
	if err != nil {
		return err
	}
	s.judge = nil
	s.log.Info("image judged", "why", why)
	if what == slot.GiveUp {
		s.stop(restart)
	}
	s.board.set(func(f *Facts) { f.Trial = false })
	return nil
}
