package benchstore

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"patronus/e2e/benchstore/load"
)

// contender is a store under measurement.
type contender struct {
	name string
	note string
	// from and to bound the ticks that it is given: the slow ones get a part.
	from, to int
	ask      func(load.Command) (load.Answer, error)
	close    func() error

	ingest      load.Answer // CPU and Wall of all chunks and the flush
	sizes       load.Answer
	questions   map[string][]load.Answer
	unavailable string
}

// dashboardEnv is what a dashboard's process runs with.
var dashboardEnv = [...]string{"GOMEMLIMIT=350MiB"}

// child starts a contender's process, which speaks load.Serve.
func child(program string, env []string, args ...string) (ask func(load.Command) (load.Answer, error), stop func() error, err error) {
	cmd := exec.Command(program, args...)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), env...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	w, r := json.NewEncoder(in), bufio.NewReader(out)
	ask = func(c load.Command) (a load.Answer, err error) {
		if err := w.Encode(c); err != nil {
			return a, err
		}
		line, err := r.ReadBytes('\n')
		if err != nil {
			return a, fmt.Errorf("%s ended: %w", program, err)
		}
		if err := json.Unmarshal(line, &a); err != nil {
			return a, err
		}
		if a.Err != "" {
			return a, errors.New(a.Err)
		}
		return a, nil
	}
	stop = func() error {
		if err := in.Close(); err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, r)
		return cmd.Wait()
	}
	return ask, stop, nil
}

// local speaks to an engine that lives in this process and works in another.
func local(e load.Engine, pid int) func(load.Command) (load.Answer, error) {
	return func(c load.Command) (load.Answer, error) {
		a := load.Do(e, &c, pid)
		if a.Err != "" {
			return a, errors.New(a.Err)
		}
		return a, nil
	}
}

// Serve runs one of our own contenders as a process of its own.
func Serve(name, dir string) error {
	var e load.Engine
	var stop func() error
	switch name {
	case "ours":
		o, err := NewOurs(dir, true)
		if err != nil {
			return err
		}
		e, stop = o, o.Close
	case "naive":
		n, err := NewNaive(dir)
		if err != nil {
			return err
		}
		e, stop = n, func() error { return n.Close() }
	default:
		return fmt.Errorf("no such contender: %q", name)
	}
	return errors.Join(load.Serve(e, os.Stdin, os.Stdout), stop())
}

// contenders starts all that there are. bin has the rivals' programs.
func contenders(dir, bin string, ticks int) []*contender {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	hour := ticks / 24
	all := []*contender{
		{name: "ours", note: "each tick synced; 1 min and 1 h tiers and sketches included in CPU and disk; GOMEMLIMIT=350MiB; the ballast is not counted", to: ticks},
		{name: "naive badger", note: "a JSON document per sample, badger's defaults, not synced; one hour of the data", from: questionHour * hour, to: (questionHour + 1) * hour},
		{name: "prometheus tsdb", note: "embedded, its log not synced", to: ticks},
		{name: "victoriametrics", note: "Debian's server; CPU includes HTTP and parsing text", to: ticks},
		{name: "influxdb", note: "Debian's 1.x server, tsi1; CPU includes HTTP and parsing text; the last 3 h of the data", from: ticks - 3*hour, to: ticks},
	}
	for i, c := range all {
		where := filepath.Join(dir, fmt.Sprint(i))
		c.questions = map[string][]load.Answer{}
		err := os.Mkdir(where, 0o700)
		if err == nil {
			err = c.start(self, bin, where)
		}
		if err != nil {
			c.unavailable = err.Error()
		}
	}
	return all
}

func (c *contender) start(self, bin, dir string) (err error) {
	switch c.name {
	case "ours":
		c.ask, c.close, err = child(self, dashboardEnv[:], "-serve", "ours", "-dir", dir)
	case "naive badger":
		c.ask, c.close, err = child(self, nil, "-serve", "naive", "-dir", dir)
	case "prometheus tsdb":
		c.ask, c.close, err = child(filepath.Join(bin, "tsdb"), nil, "-dir", dir)
	case "victoriametrics":
		v, err := NewVictoria(dir)
		if err != nil {
			return err
		}
		c.ask, c.close = local(v, v.cmd.Process.Pid), v.close
	case "influxdb":
		v, err := NewInflux(dir)
		if err != nil {
			return err
		}
		c.ask, c.close = local(v, v.cmd.Process.Pid), v.close
	}
	return err
}
