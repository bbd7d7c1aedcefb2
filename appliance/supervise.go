package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"patronus/configs"
)

// Restart back-off of a child: the edge must be back in under 3 s, so the
// first restart is immediate and the wait stays small.
const (
	restartFirst = 50 * time.Millisecond
	restartMost  = 2 * time.Second
	// steady is how long a child must live for its back-off to be forgotten.
	steady = 10 * time.Second
)

// SuperviseOptions say what appliance to run.
type SuperviseOptions struct {
	// ConfigFile is the site's own configuration; a site that a dashboard has
	// enrolled needs none.
	ConfigFile string
	// Enroll makes the appliance a site before it runs, if it is none yet; nil
	// for one that is.
	Enroll *EnrollOptions
	// DataDir is where everything is kept; empty means the configuration's.
	DataDir string
	Logger  *slog.Logger
	// NodeUser is the uid and gid that the node runs as, if we are root.
	NodeUser uint32
	// Node are the addresses that the node listens on.
	Node NodeAddresses
	// Reload asks for the configuration file to be read again.
	Reload <-chan os.Signal
}

// NodeAddresses are where a node listens on this machine's own addresses.
type NodeAddresses struct {
	// Metrics is for Prometheus; empty: nowhere. What it shows is for whoever
	// reaches it.
	Metrics string `help:"Serve metrics for Prometheus at http://ADDRESS/metrics, to whoever reaches it; default: nowhere." placeholder:"ADDRESS"`
	// Dashboard is where browsers find the dashboard, if this site is promoted.
	Dashboard string `help:"Where the dashboard listens while this site has the role." default:":8443" placeholder:"ADDRESS"`
}

// flags are the addresses as the node's command line has them.
func (a *NodeAddresses) flags() []string {
	var out []string
	if a.Metrics != "" {
		out = append(out, "--metrics", a.Metrics)
	}
	if a.Dashboard != "" {
		out = append(out, "--dashboard", a.Dashboard)
	}
	return out
}

// supervisor runs the edge and the node as children of the same executable. It
// holds the descriptors and the control socket, so that neither child's death
// closes them.
type supervisor struct {
	SuperviseOptions
	broker *broker
}

// Supervise installs the configuration, starts both children and keeps them
// running until ctx ends.
func Supervise(ctx context.Context, o SuperviseOptions) error {
	if err := raise(); err != nil {
		return err
	}
	s := &supervisor{SuperviseOptions: o, broker: newBroker(descriptorOpeners())}
	rev, err := s.install(ctx)
	if err != nil {
		return err
	}
	s.Logger.Info("configuration installed", "rev", rev.Number, "site", rev.Site)
	socket, err := listenUnix(EdgeSocket(s.DataDir), s.nodeID())
	if err != nil {
		return err
	}
	defer socket.Close()
	defer s.broker.close()
	if err := writePID(s.DataDir, "supervisor", os.Getpid()); err != nil {
		return err
	}

	// The node stops first: it asks the edge for connections.
	edgeCtx, stopEdge := context.WithCancel(context.WithoutCancel(ctx))
	defer stopEdge()
	return runTasks(edgeCtx,
		task{"edge", func(ctx context.Context) error {
			return s.keep(ctx, "edge", func(cmd *exec.Cmd) (func(), error) { return s.equipEdge(ctx, cmd, socket) })
		}},
		task{"node", func(context.Context) error {
			defer stopEdge()
			return s.keep(ctx, "node", s.equipNode)
		}},
		task{"reload", s.reload},
	)
}

// install finds the revision to begin with: of the configuration file, or the
// one that is kept, or that of an enrollment.
func (s *supervisor) install(ctx context.Context) (*configs.Revision, error) {
	if s.ConfigFile != "" {
		if s.DataDir == "" {
			cfg, err := readConfig(s.ConfigFile)
			if err != nil {
				return nil, err
			}
			s.DataDir = cfg.DataDir
		}
		return installConfig(s.ConfigFile, s.DataDir)
	}
	if s.DataDir == "" {
		s.DataDir = configs.DefaultDataDir
	}
	rev, err := keptRevision(s.DataDir)
	if err == nil || s.Enroll == nil {
		if err != nil {
			err = fmt.Errorf("%s has no site, and there is neither a configuration nor an enrollment token: %w", s.DataDir, err)
		}
		return rev, err
	}
	o := *s.Enroll
	o.DataDir = s.DataDir
	s.Logger.Info("enrolling", "site", o.Token.Site, "addr", o.Token.Addresses)
	return EnrollUntil(ctx, o)
}

// nodeID is the uid that may use the edge's socket besides our own.
func (s *supervisor) nodeID() int {
	if os.Geteuid() == 0 && s.NodeUser != 0 {
		return int(s.NodeUser)
	}
	return -1
}

// keep runs a child, and runs it again when it ends.
func (s *supervisor) keep(ctx context.Context, role string, equip func(*exec.Cmd) (func(), error)) error {
	wait := restartFirst
	for {
		started := time.Now()
		err := s.runChild(ctx, role, equip)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(started) > steady {
			wait = restartFirst
		}
		s.Logger.Error("child ended and is started again", "role", role, "err", err, "dur", wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, restartMost)
	}
}

func (s *supervisor) runChild(ctx context.Context, role string, equip func(*exec.Cmd) (func(), error)) error {
	args := []string{role, "--data-dir", s.DataDir}
	if role == "node" {
		args = append(args, s.Node.flags()...)
	}
	// The node's user may not be able to reach the file by its path; and children
	// are of the same version as we are, also while the file is being replaced.
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "patronus"
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// A child must not outlive us: nobody would restart or stop it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	release, err := equip(cmd)
	if err != nil {
		return err
	}
	defer release()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", role, err)
	}
	if err := writePID(s.DataDir, role, cmd.Process.Pid); err != nil {
		s.Logger.Warn("pid file not written", "role", role, "err", err)
	}
	stop := context.AfterFunc(ctx, func() { terminate(cmd.Process) })
	defer stop()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w", role, err)
	}
	return fmt.Errorf("%s: ended without being asked to", role)
}

// terminate asks a child to stop, and insists after 5 s.
func terminate(p *os.Process) {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return
	}
	time.AfterFunc(5*time.Second, func() {
		// An error means that it has ended meanwhile.
		_ = p.Kill()
	})
}

// equipEdge gives the edge its API socket (fd 3) and the broker (fd 4).
func (s *supervisor) equipEdge(ctx context.Context, cmd *exec.Cmd, listener *net.UnixListener) (func(), error) {
	socket, err := listener.File()
	if err != nil {
		return nil, fmt.Errorf("edge socket: %w", err)
	}
	conn, theirs, err := socketPair()
	if err != nil {
		socket.Close()
		return nil, err
	}
	cmd.ExtraFiles = []*os.File{socket, theirs}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.broker.serve(ctx, conn); err != nil {
			s.Logger.Error("broker", "err", err)
		}
	}()
	return func() {
		socket.Close()
		theirs.Close()
		conn.Close()
		<-done
	}, nil
}

// equipNode takes everything from the node that it does not need.
func (s *supervisor) equipNode(cmd *exec.Cmd) (func(), error) {
	dir := filepath.Join(s.DataDir, "node")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("node directory: %w", err)
	}
	if id := s.nodeID(); id >= 0 {
		if err := os.Chown(dir, id, id); err != nil {
			return nil, fmt.Errorf("node directory: %w", err)
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(id), Gid: uint32(id)}
	}
	return func() {}, nil
}

// reload reads the configuration again whenever it is asked to; a bad one is
// refused and changes nothing.
func (s *supervisor) reload(ctx context.Context) error {
	client := NewEdgeClient(EdgeSocket(s.DataDir))
	defer client.Close()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.Reload:
		}
		if s.ConfigFile == "" {
			s.Logger.Info("this site has no configuration file: its dashboard configures it")
			continue
		}
		signed, number, err := nextRevision(s.ConfigFile, s.DataDir)
		if err == nil {
			err = client.Apply(ctx, signed)
		}
		if err != nil {
			s.Logger.Error("configuration refused; the running one stays", "err", err)
			continue
		}
		s.Logger.Info("configuration applied", "rev", number)
	}
}

// SignalReload asks the appliance of a data directory to read its
// configuration again, and returns the process it asked.
func SignalReload(dataDir string) (pid int, err error) {
	text, err := os.ReadFile(filepath.Join(dataDir, "run", "supervisor.pid"))
	if err != nil {
		return 0, fmt.Errorf("is an appliance running with --data-dir %s? %w", dataDir, err)
	}
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		return 0, fmt.Errorf("pid file: %w", err)
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		return 0, fmt.Errorf("signal process %d: %w", pid, err)
	}
	return pid, nil
}

// EdgeSocket is where the edge listens, below a data directory.
func EdgeSocket(dataDir string) string { return filepath.Join(dataDir, "run", "edge.sock") }

// writePID replaces a pid file as a whole: somebody may be reading it.
func writePID(dataDir, role string, pid int) error {
	file := filepath.Join(dataDir, "run", role+".pid")
	if err := os.WriteFile(file+".new", fmt.Appendf(nil, "%d\n", pid), 0o644); err != nil {
		return fmt.Errorf("pid file: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("pid file: %w", err)
	}
	return nil
}

// listenUnix listens on path, which only we and uid may use (uid < 0: only we).
func listenUnix(path string, uid int) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, fmt.Errorf("socket directory: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("stale socket: %w", err)
	}
	// Nobody may connect between bind and chmod.
	old := unix.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if uid >= 0 {
		if err := os.Chown(path, uid, -1); err != nil {
			l.Close()
			return nil, fmt.Errorf("socket owner: %w", err)
		}
	}
	return l, nil
}
