package pid1

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"patronus/image/slot"
)

const (
	dataDir    = "/var/lib/patronus"
	configFile = dataDir + "/etc/patronus.yaml"
	tokenFile  = dataDir + "/etc/token"
	// enrolledFile is there once the appliance has a site: patronus enroll writes
	// it last.
	enrolledFile = dataDir + "/edge/identity"
	executable   = "/init"
)

// Gateway is what pid1 asks the gateway that it runs.
type Gateway interface {
	// Status fails as long as the gateway does not answer.
	Status(ctx context.Context) (Status, error)
}

// Status is what the status page and the judge want to know of the gateway.
type Status struct {
	Fabric, Site string
	Revision     uint64
	Paths        int
	PathsUp      int
	// Dashboard says that the site's dashboard was reached; a site that has none
	// has nothing to reach.
	Dashboard bool
}

// Wanted reports whether this process is the first one of a machine, started
// by the kernel from our image.
func Wanted(args []string) bool {
	return os.Getpid() == 1 && len(args) > 0 && filepath.Base(args[0]) == "init"
}

// ending is how the machine is left.
type ending int

const (
	restart ending = iota
	powerOff
)

// system is the machine; its fields are set before the tasks start.
type system struct {
	gateway Gateway
	log     *slog.Logger
	ring    *ring
	board   *board
	modules *moduleIndex
	paths   slot.Paths
	kids    *children
	end     chan ending // the first one counts

	network chan struct{} // network.yaml was read
	judge   *slot.Judge   // nil: not on trial
}

// Run is the life of the machine. It returns only if the machine cannot be
// left, which a kernel answers with a panic and a restart.
func Run(g Gateway) error {
	ring := newRing(ringSize)
	console, err := mountBasics()
	s := &system{
		gateway: g, ring: ring, board: newBoard(), paths: slot.DefaultPaths(),
		kids: newChildren(), end: make(chan ending, 1), network: make(chan struct{}),
	}
	s.log = slog.New(slog.NewTextHandler(tee{ring, console}, nil))
	s.report("mount", err)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGCHLD)
	// Ctrl-Alt-Del is a request, not a reset.
	s.report("ctrl-alt-del", unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF))

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	run := func(name string, f func(context.Context) error) {
		group.Go(func() error {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				s.report(name, err) // the machine goes on without it
			}
			return nil
		})
	}
	run("signals", func(ctx context.Context) error { return s.signals(ctx, signals) })
	run("boot", func(ctx context.Context) error {
		s.boot(ctx)
		run("interfaces", s.interfaces)
		run("gateway", s.runGateway)
		run("judge", s.judgeImage)
		run("clock", s.keepClock)
		return nil
	})
	run("watchdog", s.watchdog)
	run("consoles", s.consoles)
	run("buttons", s.buttons)
	run("devices", s.devices)

	how := <-s.end
	s.log.Info("the machine stops", "to", how.String())
	cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = group.Wait()
	}()
	select {
	case <-done:
	case <-time.After(15 * time.Second):
		s.log.Warn("some tasks do not stop; going on without them")
	}
	return s.leave(how)
}

func (e ending) String() string {
	if e == powerOff {
		return "power off"
	}
	return "restart"
}

// stop asks for the machine to be left; it never blocks.
func (s *system) stop(how ending) {
	select {
	case s.end <- how:
	default:
	}
}

// report logs a problem and shows it on the status page; nil is none.
func (s *system) report(what string, err error) {
	if err == nil {
		s.board.problem(what, "")
		return
	}
	s.log.Error("problem", "role", what, "err", err)
	s.board.problem(what, err.Error())
}

// signals follows the conventions of other inits: SIGUSR1 and SIGUSR2 power
// off, SIGTERM and SIGINT (Ctrl-Alt-Del) restart.
func (s *system) signals(ctx context.Context, in <-chan os.Signal) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case sig := <-in:
			switch sig {
			case unix.SIGCHLD:
				s.kids.reap()
			case unix.SIGUSR1, unix.SIGUSR2:
				s.stop(powerOff)
			default:
				s.stop(restart)
			}
		case <-tick.C:
			s.kids.reap()
			s.board.beat(time.Now())
		}
	}
}

// leave unmounts and ends the machine.
func (s *system) leave(how ending) error {
	saveClock(time.Now())
	unix.Sync()
	for _, m := range []string{dataDir, s.paths.ESP} {
		if err := unix.Unmount(m, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			// Somebody still writes there: at least nothing more after this.
			s.log.Warn("not unmounted; made read-only", "path", m, "err", err)
			_ = unix.Mount("", m, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}
	}
	unix.Sync()
	cmd := unix.LINUX_REBOOT_CMD_RESTART
	if how == powerOff {
		cmd = unix.LINUX_REBOOT_CMD_POWER_OFF
	}
	if err := unix.Reboot(cmd); err != nil {
		return fmt.Errorf("%s: %w", how, err)
	}
	return errors.New("reboot returned")
}

// pause waits, and reports whether ctx is still on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// board is what the tasks know and the status page shows.
type board struct {
	mu       sync.Mutex
	facts    Facts
	problems map[string]string
	beatAt   time.Time
}

func newBoard() *board { return &board{problems: map[string]string{}} }

func (b *board) set(f func(*Facts)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.facts)
}

func (b *board) problem(what, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if text == "" {
		delete(b.problems, what)
		return
	}
	b.problems[what] = text
}

func (b *board) beat(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beatAt = now
}

// alive reports whether the first process still does its work.
func (b *board) alive(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return now.Sub(b.beatAt) < 15*time.Second
}

func (b *board) snapshot() Facts {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.facts
	f.Problems = nil
	for _, what := range sortedKeys(b.problems) {
		f.Problems = append(f.Problems, what+": "+b.problems[what])
	}
	return f
}

// Expect says what must work after an update, by what works before it.
func Expect(st Status, err error) slot.Expectation {
	return slot.Expectation{Configured: err == nil, Paths: err == nil && st.PathsUp > 0, Dashboard: err == nil && st.Dashboard}
}

// RequestRestart asks the first process for an orderly restart.
func RequestRestart() error {
	if err := unix.Kill(1, unix.SIGTERM); err != nil {
		return fmt.Errorf("ask for a restart: %w", err)
	}
	return nil
}
