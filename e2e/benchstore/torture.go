package benchstore

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"patronus/appliance/ledger"
	"patronus/appliance/store"
	"patronus/e2e/benchstore/load"
)

// Finding is what one torture came to. Lost, Wrong, Silent and Died must be 0.
type Finding struct {
	Test    string  `json:"test"`
	Runs    int     `json:"runs"`
	Acked   int     `json:"acked,omitempty"`   // writes that were acknowledged
	Lost    int     `json:"lost"`              // of those, not there afterwards
	Wrong   int     `json:"wrong"`             // values that are not what was written
	Silent  int     `json:"silent"`            // runs in which values are missing and nothing says so
	Died    int     `json:"died"`              // processes that ended on their own
	Right   int     `json:"right,omitempty"`   // runs in which everything was there
	Refused int     `json:"refused,omitempty"` // runs in which damage was told
	MiB     float64 `json:"mib,omitempty"`     // memory, where that is the question
	Skipped string  `json:"skipped,omitempty"`
	Notes   string  `json:"notes,omitempty"` // the first things that were not right
}

// Good reports whether nothing was lost, wrong, silent or dead.
func (f *Finding) Good() bool { return f.Lost+f.Wrong+f.Silent+f.Died == 0 }

func (f *Finding) note(format string, args ...any) {
	if len(f.Notes) < 1000 {
		f.Notes += fmt.Sprintf(format, args...) + "; "
	}
}

// Torture does all there is, in full, and writes a line of JSON for each. It
// takes an hour or so.
func Torture(ctx context.Context, w io.Writer) error {
	out := json.NewEncoder(w)
	bad := 0
	for _, f := range []func(dir string) (Finding, error){
		func(dir string) (Finding, error) { return Kill(ctx, "store", dir, 100) },
		func(dir string) (Finding, error) { return Kill(ctx, "dashboard", dir, 100) },
		func(dir string) (Finding, error) { return Kill(ctx, "ledger", dir, 100) },
		func(dir string) (Finding, error) { return Harm(ctx, dir, 0) },
		func(dir string) (Finding, error) { return Full(ctx, dir) },
		func(dir string) (Finding, error) { return Branch(ctx, dir, branchDays) },
	} {
		dir, err := os.MkdirTemp("", "patronus-torture-")
		if err != nil {
			return err
		}
		found, err := f(dir)
		if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
			return fmt.Errorf("%s: %w", found.Test, err)
		}
		if !found.Good() {
			bad++
		}
		if err := out.Encode(found); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of the tortures found something", bad)
	}
	return nil
}

// The written data of the torture: ten paths, a sample a minute, whose values
// their time tells.
const (
	torturePaths = load.PathsPerSite
	tortureStep  = int64(60_000)
	tortureBase  = int64(1_780_272_000_000) // a full hour, Unix ms
)

func tortureValue(tick int64, path, metric int) int32 {
	x := uint64(tick)*0x9E3779B97F4A7C15 + uint64(path*31+metric)*0xBF58476D1CE4E5B9
	x ^= x >> 29
	return int32(x % 5000)
}

func tortureBatch(b store.Batch, tick int64) store.Batch {
	at := tortureBase + tick*tortureStep
	b = store.Batch{Site: load.Site(0), At: at, Samples: b.Samples[:0]}
	for p := range torturePaths {
		s := store.SeriesSample{Series: series(p), Sample: store.Sample{At: at}}
		for m := range s.V {
			s.V[m] = tortureValue(tick, p, m)
		}
		b.Samples = append(b.Samples, s)
	}
	return b
}

const childEnv = "PATRONUS_BENCHSTORE_CHILD"

// Child runs what a torture started this program again for; false if it was
// started for something else.
func Child() bool {
	what, dir, _ := strings.Cut(os.Getenv(childEnv), " ")
	if what == "" {
		return false
	}
	var err error
	switch what {
	case "store-write":
		err = storeWrite(dir)
	case "store-read":
		err = json.NewEncoder(os.Stdout).Encode(storeRead(dir))
	case "ledger-write":
		err = ledgerWrite(dir)
	case "ledger-read":
		err = json.NewEncoder(os.Stdout).Encode(ledgerRead(dir))
	case "full":
		err = json.NewEncoder(os.Stdout).Encode(full(dir))
	case "branch":
		err = json.NewEncoder(os.Stdout).Encode(branch(dir))
	default:
		err = fmt.Errorf("no such child: %q", what)
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	return true
}

func again(ctx context.Context, what, dir string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), childEnv+"="+what+" "+dir)
	return cmd
}

// ask runs a child to its end and decodes what it tells.
func ask(ctx context.Context, what, dir string, into any) error {
	out, err := again(ctx, what, dir).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return fmt.Errorf("%w: %.300s %.100s", err, exit.Stderr, out)
		}
		return err
	}
	return json.Unmarshal(out, into)
}

// storeWrite appends until it is killed, and tells each acknowledged tick. The
// clock of the store is that of the data, so that hours are sealed on the way.
func storeWrite(dir string) error {
	next := int64(0)
	clock := time.Now
	s, err := store.Open(dir, store.Options{Dashboard: strings.HasSuffix(dir, "dashboard"), Keep: tortureKeep, Now: func() time.Time { return clock() }})
	if err != nil {
		return err
	}
	for _, l := range s.Last() {
		next = max(next, (l.At-tortureBase)/tortureStep+1)
	}
	var b store.Batch
	for ; ; next++ {
		b = tortureBatch(b, next)
		if err := s.Append(context.Background(), b); err != nil {
			return err
		}
		fmt.Println(next)
		if next%60 == 30 {
			at := time.UnixMilli(b.At)
			clock = func() time.Time { return at }
			if err := s.Seal(); err != nil {
				return err
			}
		}
	}
}

var tortureKeep = store.Keep{Raw: 1e5 * time.Hour, Minute: 1e5 * time.Hour, Hour: 1e5 * time.Hour}

// seen is what a child read. Problems are those that the store told of.
type seen struct {
	Open     string // error of opening
	Newest   int64  // tick
	Missing  int    // ticks and paths up to the newest
	Samples  int
	Wrong    int
	Problems int
	Note     string
}

func (out *seen) note(format string, args ...any) {
	out.Wrong++
	if len(out.Note) < 300 {
		out.Note += fmt.Sprintf(format, args...) + "; "
	}
}

// storeRead compares everything with what must have been written.
func storeRead(dir string) (out seen) {
	out.Newest = -1
	s, err := store.Open(dir, store.Options{Dashboard: strings.HasSuffix(dir, "dashboard"), Keep: tortureKeep})
	if err != nil {
		out.Open = err.Error()
		return out
	}
	const all = int64(1) << 50
	got := make([]map[int64]bool, torturePaths)
	for p := range torturePaths {
		got[p] = map[int64]bool{}
		for sm, err := range s.Samples(series(p), 0, all) {
			if err != nil {
				out.Problems++
				continue
			}
			tick := (sm.At - tortureBase) / tortureStep
			if sm.At < tortureBase || (sm.At-tortureBase)%tortureStep != 0 || got[p][tick] {
				out.note("path %d has a sample at %d", p, sm.At)
				continue
			}
			got[p][tick] = true
			out.Newest = max(out.Newest, tick)
			out.Samples++
			for m, v := range sm.V {
				if v != tortureValue(tick, p, m) {
					out.note("path %d tick %d metric %d is %d", p, tick, m, v)
				}
			}
		}
	}
	for p := range torturePaths {
		out.Missing += int(out.Newest+1) - len(got[p])
		out.rollups(s, p, got[p])
	}
	out.sketches(s, got)
	st := s.Stats()
	out.Problems += int(st.Damaged + st.Lost)
	if events, _, err := s.Events(store.EventFilter{Type: "store_damaged"}, store.Page{}); err != nil || len(events) > 0 {
		out.Problems++
	}
	if q, err := os.ReadDir(filepath.Join(dir, "quarantine")); err == nil && len(q) > 0 {
		out.Problems++
	}
	if err := s.Close(); err != nil {
		out.Problems++
	}
	return out
}

// rollups compares the hours: none may be of more samples than were written,
// and one that has all of them must be right.
func (out *seen) rollups(s *store.Store, p int, got map[int64]bool) {
	m := store.Latency
	for pt, err := range s.Range(store.Query{Series: series(p), Metric: m, From: 0, To: 1 << 50, Tier: store.Hour}) {
		if err != nil {
			out.Problems++
			continue
		}
		first := (pt.At - tortureBase) / tortureStep
		sum, least, most, whole := 0.0, 1e9, -1e9, true
		for t := first; t < first+60; t++ {
			v := m.Value(tortureValue(t, p, int(m)))
			sum, least, most = sum+v, min(least, v), max(most, v)
			whole = whole && got[t]
		}
		switch mean := sum / 60; {
		case pt.Count > 60:
			out.note("hour %d of path %d has %d samples", first/60, p, pt.Count)
		case whole && pt.Count == 60 && (pt.Mean < mean-0.011 || pt.Mean > mean+0.011 || pt.Min < least-0.011 || pt.Max > most+0.011):
			out.note("hour %d of path %d: mean %g, not %g", first/60, p, pt.Mean, mean)
		}
	}
}

// sketches compares the number of samples behind the fleet's percentiles.
func (out *seen) sketches(s *store.Store, got []map[int64]bool) {
	hours := map[int64]uint64{}
	for _, g := range got {
		for t := range g {
			hours[t/60]++
		}
	}
	if len(hours) == 0 {
		return
	}
	qs, err := s.FleetQuantile(store.Latency, tortureBase, tortureBase+(out.Newest/60+1)*60*tortureStep, 60*tortureStep, 0.5)
	if err != nil {
		out.Problems++
		return
	}
	for _, q := range qs {
		if h := (q.At - tortureBase) / (60 * tortureStep); q.Count != hours[h] {
			if q.Count < hours[h] {
				out.Problems++ // less than there is, which a recount mends
			}
			out.note("the fleet's hour %d has %d samples, not %d", h, q.Count, hours[h])
		}
	}
}

// ledgerWrite commits until it is killed, and tells each acknowledged commit.
func ledgerWrite(dir string) error {
	l, err := ledger.Open(dir)
	if err != nil {
		return err
	}
	for n := int(l.Commits()) + 1; ; n++ {
		if err := l.Update(context.Background(), func(tx *ledger.Tx) error {
			return errors.Join(tx.Put("n", []byte(strconv.Itoa(n))), tx.Put(fmt.Sprintf("key/%d", n%10), []byte(strings.Repeat(strconv.Itoa(n)+";", n%50))),
				tx.Audit(ledger.AuditRecord{User: "u", Action: "write", ResourceID: strconv.Itoa(n)}))
		}); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

func ledgerRead(dir string) (out seen) {
	l, err := ledger.Open(dir)
	if err != nil {
		out.Open = err.Error()
		return out
	}
	defer l.Close() // only read
	values := map[string]string{}
	err = l.View(func(tx *ledger.Tx) error {
		return tx.Scan("", "", func(key string, v []byte) bool { values[key] = string(v); return true })
	})
	if err != nil {
		out.Problems++
	}
	newest, err := strconv.Atoi(values["n"])
	if err != nil {
		return out
	}
	out.Newest = int64(newest)
	for n := newest; n > max(0, newest-10); n-- {
		if v := values[fmt.Sprintf("key/%d", n%10)]; v != strings.Repeat(strconv.Itoa(n)+";", n%50) {
			out.note("commit %d: %.40q", n, v)
		}
	}
	if n, err := l.VerifyAudit(); err != nil || n != uint64(newest) {
		out.note("%d audit records of %d: %v", n, newest, err)
	}
	return out
}

// Kill kills a writing process again and again, on the same files: what is
// "store", "dashboard" or "ledger".
func Kill(ctx context.Context, what, dir string, times int) (Finding, error) {
	f := Finding{Test: "kill -9 " + what}
	kind := "store"
	if what == "ledger" {
		kind = what
	}
	where := filepath.Join(dir, what)
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	for range times {
		acked, err := killOnce(ctx, kind+"-write", where, 5+r.IntN(150), time.Duration(r.IntN(4000))*time.Microsecond)
		if err != nil {
			f.Died++
			f.note("%v", err)
			break
		}
		f.Runs++
		var s seen
		if err := ask(ctx, kind+"-read", where, &s); err != nil {
			f.Died++
			f.note("%v", err)
			break
		}
		f.Acked = int(acked)
		f.Wrong += s.Wrong
		f.Lost += s.Missing + int(max(0, acked-s.Newest))
		if s.Open != "" {
			f.Refused++
		}
		if s.Open != "" || s.Note != "" || s.Problems > 0 || s.Missing > 0 {
			f.note("after %d: %s %s, problems %d, missing %d", acked, s.Open, s.Note, s.Problems, s.Missing)
			break
		}
		f.Right++
	}
	return f, ctx.Err()
}

// killOnce starts a writer and kills it a little after it told n writes.
func killOnce(ctx context.Context, what, dir string, n int, after time.Duration) (acked int64, err error) {
	cmd := again(ctx, what, dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	var kill *time.Timer
	s := bufio.NewScanner(out)
	for i := 0; s.Scan(); i++ {
		if acked, err = strconv.ParseInt(s.Text(), 10, 64); err != nil {
			rest, _ := io.ReadAll(io.LimitReader(out, 300))
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			return 0, fmt.Errorf("%s: %s %s", what, s.Text(), rest)
		}
		if i == n {
			kill = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
	}
	_ = cmd.Wait() // it was killed
	if kill == nil {
		return 0, fmt.Errorf("%s ended on its own after %d", what, acked)
	}
	return acked, nil
}
