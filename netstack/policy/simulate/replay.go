package simulate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"patronus/netstack/policy"
)

// ReplayOptions say how to replay.
type ReplayOptions struct {
	// Samples is how many flows are shown for each policy rule and kind of
	// change; 0 means 3, negative none.
	Samples int
	// Workers is how many records are judged at once; 0 means GOMAXPROCS.
	Workers int
	// Progress, if set, is told now and then how many bytes have been read, by
	// one goroutine at a time.
	Progress func(bytes int64)
}

// Replay judges recorded flows by the compiler's last ruleset, each under the
// labels that it was decided under, and reports what would differ from what was
// decided. Only the ends that the recording appliance judged are judged, so
// that records of many sites may be put together. r is JSON lines or a packed
// file (FORMAT.md), told apart by its first bytes.
//
// Records are read once and not kept: memory depends on the number of different
// parties, not of records. The compiler must not be used until Replay returns.
// Errors in the input wrap [ErrFormat].
func Replay(ctx context.Context, c *policy.Compiler, rules *policy.Ruleset, r io.Reader, o ReplayOptions) (*Report, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Samples == 0 {
		o.Samples = 3
	}
	p := &replay{rules: rules, options: o, dict: newDictionary(c.Profiler()), chunks: make(chan chunk, 2*o.Workers)}
	p.pool.New = func() any { return new([]byte) }
	in := bufio.NewReaderSize(r, 1<<18)
	head, _ := in.Peek(len(magic))
	group, ctx := errgroup.WithContext(ctx)
	packed := string(head) == magic
	group.Go(func() error {
		defer close(p.chunks)
		if packed {
			return p.readPacked(ctx, in)
		}
		return p.readLines(ctx, in)
	})
	tallies := make([]*tally, o.Workers)
	for i := range tallies {
		tallies[i] = newTally(o.Samples)
		group.Go(func() error { return p.work(ctx, tallies[i]) })
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	for _, t := range tallies[1:] {
		tallies[0].merge(t)
	}
	return tallies[0].report(p.dict, rules), nil
}

// replay is the state of one call of Replay.
type replay struct {
	rules   *policy.Ruleset
	options ReplayOptions
	dict    *dictionary
	chunks  chan chunk
	pool    sync.Pool // *[]byte
	read    atomic.Int64
}

// chunk is a row of records that one worker judges.
type chunk struct {
	first   int64 // place of its first record or line in the input
	packed  bool
	buf     *[]byte
	bytes   []byte
	parties []*party // packed: all that come before it; shared, never written
	names   int      // packed: how many come before it
}

func (p *replay) buffer(n int) *[]byte {
	b := p.pool.Get().(*[]byte)
	if cap(*b) < n {
		*b = make([]byte, n)
	}
	*b = (*b)[:n]
	return b
}

func (p *replay) send(ctx context.Context, c chunk) error {
	if n := p.read.Add(int64(len(c.bytes))); p.options.Progress != nil {
		p.options.Progress(n)
	}
	select {
	case p.chunks <- c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readPacked reads frames: dictionaries are kept, records go to the workers.
func (p *replay) readPacked(ctx context.Context, in *bufio.Reader) error {
	if _, err := in.Discard(len(magic)); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	frames := frameReader{r: in}
	var buf *[]byte
	take := func(n int) []byte { buf = p.buffer(n); return *buf }
	var place int64
	for {
		kind, payload, err := frames.next(take)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch kind {
		case frameParty:
			if _, err := p.dict.addParty(payload); err != nil {
				return frames.failf("party: %w", err)
			}
		case frameName:
			if _, err := p.dict.addName(string(payload)); err != nil {
				return frames.failf("name: %w", err)
			}
		case frameRecords:
			parties, names := p.dict.snapshot()
			if err := p.send(ctx, chunk{place, true, buf, payload, parties, names}); err != nil {
				return err
			}
			place += int64(len(payload) / recordSize)
		}
	}
}

// lineChunk is how much of a text one worker gets, and the longest line.
const lineChunk = 1 << 18

// readLines cuts a text into rows of whole lines.
func (p *replay) readLines(ctx context.Context, in io.Reader) error {
	var rest []byte
	place := int64(1)
	for {
		buf := p.buffer(2 * lineChunk)
		b := *buf
		kept := copy(b, rest)
		n, err := io.ReadFull(in, b[kept:])
		b = b[:kept+n]
		end := len(b)
		over := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !over {
			return err
		}
		if !over {
			if end = bytes.LastIndexByte(b, '\n') + 1; end == 0 {
				return fmt.Errorf("%w: line %d is longer than %d bytes", ErrFormat, place, 2*lineChunk)
			}
		}
		rest = append(rest[:0], b[end:]...)
		lines := int64(bytes.Count(b[:end], []byte{'\n'}))
		if err := p.send(ctx, chunk{first: place, buf: buf, bytes: b[:end]}); err != nil {
			return err
		}
		place += lines
		if over {
			return nil
		}
	}
}

// work judges chunks until there are no more.
func (p *replay) work(ctx context.Context, t *tally) error {
	local := localDictionary{shared: p.dict, parties: map[string]*party{}, names: map[string]uint32{}}
	for c := range p.chunks {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if c.packed {
			err = p.judgePacked(&c, t)
		} else {
			err = p.judgeLines(&c, t, &local)
		}
		p.pool.Put(c.buf)
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *replay) judgePacked(c *chunk, t *tally) error {
	var r Record
	for i := 0; i < len(c.bytes); i += recordSize {
		place := c.first + int64(i/recordSize)
		if !r.decode(c.bytes[i : i+recordSize]) {
			return fmt.Errorf("%w: record %d: unknown flags", ErrFormat, place)
		}
		from, to := &nowhere, &nowhere
		if r.From != Nowhere {
			if int(r.From) >= len(c.parties) {
				return fmt.Errorf("%w: record %d: party %d comes later or never", ErrFormat, place, r.From)
			}
			from = c.parties[r.From]
		}
		if r.To != Nowhere {
			if int(r.To) >= len(c.parties) {
				return fmt.Errorf("%w: record %d: party %d comes later or never", ErrFormat, place, r.To)
			}
			to = c.parties[r.To]
		}
		if r.Policy != NoName && int(r.Policy) >= c.names {
			return fmt.Errorf("%w: record %d: name %d comes later or never", ErrFormat, place, r.Policy)
		}
		p.judge(&r, from, to, place, t)
	}
	return nil
}

func (p *replay) judgeLines(c *chunk, t *tally, local *localDictionary) error {
	var r Record
	var l line
	place := c.first
	for text := range bytes.Lines(c.bytes) {
		text = bytes.TrimSpace(text)
		if len(text) == 0 {
			place++
			continue
		}
		skip, err := parseLine(text, &l, &r)
		if err == nil && !skip {
			err = p.judgeLine(&l, &r, place, t, local)
		}
		if err != nil {
			return fmt.Errorf("%w: line %d: %w", ErrFormat, place, err)
		}
		place++
	}
	return nil
}

func (p *replay) judgeLine(l *line, r *Record, place int64, t *tally, local *localDictionary) error {
	from, err := local.party(l.From)
	if err != nil {
		return fmt.Errorf("from: %w", err)
	}
	to, err := local.party(l.To)
	if err != nil {
		return fmt.Errorf("to: %w", err)
	}
	if r.Policy, err = local.name(l.Policy); err != nil {
		return err
	}
	p.judge(r, from, to, place, t)
	return nil
}

// judge asks the rules about one record.
func (p *replay) judge(r *Record, from, to *party, place int64, t *tally) {
	d := p.rules.EvaluateSubjects(from.subject, to.subject, &r.Key, r.Egress || !r.Ingress, r.Ingress || !r.Egress)
	t.records++
	if t.first == 0 || r.At < t.first {
		t.first = r.At
	}
	t.last = max(t.last, r.At)
	if d.Allowed == r.Allowed {
		t.unchanged++
		return
	}
	t.changed(r, &d, from, to, place)
}
