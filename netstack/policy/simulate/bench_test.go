package simulate

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"syscall"
	"testing"

	"patronus/netstack/policy"
)

// repeat reads a packed file and then its records over and over.
type repeat struct {
	head, records []byte
	times         int
	at            int
}

// repeated is a packed file whose records are there n times.
func repeated(packed []byte, n int) *repeat {
	// The dictionary is written before the first full frame of records; names
	// may follow, so everything is repeated but the parties.
	return &repeat{head: packed, records: onlyRecords(packed), times: n - 1}
}

func onlyRecords(packed []byte) []byte {
	var out bytes.Buffer
	w := NewWriter(&out)
	r := bytes.NewReader(packed[len(magic):])
	f := frameReader{r: bufio.NewReader(r)}
	for {
		kind, payload, err := f.next(func(n int) []byte { return make([]byte, n) })
		if err != nil {
			break
		}
		if kind == frameRecords {
			w.frame(kind, payload)
		}
	}
	w.Close()
	return out.Bytes()[len(magic):]
}

func (r *repeat) Read(b []byte) (int, error) {
	for r.at == len(r.head) {
		if r.times == 0 {
			return 0, io.EOF
		}
		r.head, r.at, r.times = r.records, 0, r.times-1
	}
	n := copy(b, r.head[r.at:])
	r.at += n
	return n, nil
}

// BenchmarkReplay replays recorded flows of 10,000 endpoints against 1,000
// policies of which half were changed. ns/op is per record.
func BenchmarkReplay(b *testing.B) {
	in := bigWorld(100, 10_000, 1_000)
	packed := bigRecords(in, 200_000)
	c := policy.NewCompiler()
	rules, err := c.Apply(policy.Change{Input: policy.Input{Policies: in.Policies[:500]}})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("packed", func(b *testing.B) {
		b.ReportAllocs()
		b.ResetTimer()
		before := cpuTime(b)
		n := max(b.N, 200_000)
		report, err := Replay(context.Background(), c, rules, repeated(packed, (n+199_999)/200_000), ReplayOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(cpuTime(b)-before)/float64(report.Records), "cpu-ns/record")
		b.ReportMetric(float64(report.Records)/b.Elapsed().Seconds(), "records/s")
		b.ReportMetric(float64(report.Blocked.Flows+report.Allowed.Flows)/float64(report.Records), "changed")
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		records := make([]byte, recordSize*batchSize)
		var r Record
		for i := range b.N {
			at := i % batchSize * recordSize
			r.decode(records[at : at+recordSize])
		}
	})
	b.Run("frame", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, maxFrame)
		f := frameReader{r: bufio.NewReader(repeated(packed, b.N/200_000+2))}
		f.r.Discard(len(magic))
		b.ResetTimer()
		for n := 0; n < b.N; {
			kind, p, err := f.next(func(n int) []byte { return buf[:n] })
			if err != nil {
				b.Fatal(err)
			}
			if kind == frameRecords {
				n += len(p) / recordSize
			}
		}
	})
	b.Run("evaluate", func(b *testing.B) {
		b.ReportAllocs()
		full := policy.NewCompiler()
		rules, err := full.Apply(policy.Change{Input: policy.Input{Policies: in.Policies}})
		if err != nil {
			b.Fatal(err)
		}
		profiler := full.Profiler()
		subjects := make([]policy.Subject, len(in.Endpoints))
		for i, e := range in.Endpoints {
			subjects[i] = profiler.Subject(policy.Profile{Namespace: e.Namespace, Labels: e.Labels, Ports: e.Ports})
		}
		b.ResetTimer()
		allowed := 0
		for i := range b.N {
			from, to := i%len(subjects), i*7919%len(subjects)
			k := newKey(6, in.Endpoints[from].Addresses[0].Addr(), in.Endpoints[to].Addresses[0].Addr(), uint16(80+i%5))
			if rules.EvaluateSubjects(subjects[from], subjects[to], &k, true, true).Allowed {
				allowed++
			}
		}
	})
}

// cpuTime is what the process has used, ns: on a shared machine it says more
// than the wall clock.
func cpuTime(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkMatrix judges all pairs of some 1,000 groups, on all ports.
func BenchmarkMatrix(b *testing.B) {
	in := bigWorld(50, 5_000, 500)
	w, err := NewWorld(in, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		if _, err := w.Matrix(context.Background(), true, nil); err != nil {
			b.Fatal(err)
		}
	}
	n := len(w.groups)
	b.ReportMetric(float64(n), "groups")
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N*n*n*len(w.ports)), "cpu-ns/cell")
}

// BenchmarkDiff is one changed policy among 1,000 over 10,000 endpoints, with
// the compiling of both worlds.
func BenchmarkDiff(b *testing.B) {
	in := bigWorld(100, 10_000, 1_000)
	changed := bigWorld(100, 0, 1_001).Policies[1_000]
	b.Run("world", func(b *testing.B) {
		for b.Loop() {
			if _, err := NewWorld(in, nil, []policy.Policy{changed}); err != nil {
				b.Fatal(err)
			}
		}
	})
	w, err := NewWorld(in, nil, []policy.Policy{changed})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("diff", func(b *testing.B) {
		n := 0
		for b.Loop() {
			diff, err := w.Diff(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			n = len(diff)
		}
		b.ReportMetric(float64(n), "pairs")
		b.ReportMetric(float64(len(w.groups)), "groups")
	})
	b.Run("lint", func(b *testing.B) {
		n := 0
		for b.Loop() {
			n = len(Lint(w, LintOptions{}))
		}
		b.ReportMetric(float64(n), "findings")
	})
}
