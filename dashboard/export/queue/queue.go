package queue

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Options bound a queue. The zero value has the defaults below.
type Options struct {
	// Readers are the names of the readers: lower-case letters, digits and
	// hyphens. Cursors of others are removed, so that a reader that was taken
	// out of the configuration holds nothing back.
	Readers []string
	// MaxBytes bounds all segments together (default 1 GiB).
	MaxBytes int64
	// SegmentBytes is the size of one segment, which is what goes at once
	// beyond the bound (default MaxBytes/64, within 64 KiB and 16 MiB).
	SegmentBytes int64
	// Reserve is the free space that the queue leaves to others on its file
	// system (default 64 MiB; negative: none).
	Reserve int64
	// Free tells the free bytes of the file system of a directory (default:
	// statfs).
	Free func(dir string) (int64, error)
}

// ErrClosed is returned by every call after Close.
var ErrClosed = errors.New("queue is closed")

// ErrTooLarge is returned for a record that would not fit in a queue of this
// bound.
var ErrTooLarge = errors.New("record is too large")

// Queue is a durable queue; see the package's documentation.
type Queue struct {
	dir string
	o   Options

	open struct { // the group that Append adds to
		sync.Mutex
		group *group
	}
	write struct { // held by the one committer
		sync.Mutex
		file *os.File
		buf  []byte
	}
	state struct {
		sync.Mutex
		segments []segment // oldest first; the last one is written
		cursors  map[string]*cursor
		more     chan struct{} // closed and replaced when records were committed
		closed   bool
		appended uint64
		torn     int64 // bytes that Open cut off
	}
}

// segment is one file. Its records end at size, as far as they are durable.
type segment struct {
	number uint64
	size   int64
}

// group is what one fsync makes durable.
type group struct {
	records []Record
	done    bool
	err     error
}

func segmentPath(dir string, n uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x.seg", n))
}

// Open opens or creates the queue in dir. A tail that a crash tore off is cut;
// nothing else is read, so that opening takes the same time however much waits.
func Open(dir string, o Options) (*Queue, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 1 << 30
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = min(max(o.MaxBytes/64, 64<<10), 16<<20)
	}
	o.SegmentBytes = max(min(o.SegmentBytes, o.MaxBytes/2), segmentHead+frameHead)
	if o.Reserve == 0 {
		o.Reserve = 64 << 20
	}
	if o.Free == nil {
		o.Free = statfs
	}
	for _, name := range o.Readers {
		if !readerName.MatchString(name) {
			return nil, fmt.Errorf("queue: %q is not a name of a reader", name)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	q := &Queue{dir: dir, o: o}
	q.open.group = &group{}
	q.state.more = make(chan struct{})
	q.state.cursors = map[string]*cursor{}
	if err := q.load(); err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	return q, nil
}

func statfs(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// load finds segments and cursors, and cuts the tail.
func (q *Queue) load() error {
	entries, err := os.ReadDir(q.dir)
	if err != nil {
		return err
	}
	s := &q.state
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".cursor"); ok && !slices.Contains(q.o.Readers, name) {
			if err := os.Remove(filepath.Join(q.dir, e.Name())); err != nil {
				return err
			}
		}
		name, ok := strings.CutSuffix(e.Name(), ".seg")
		n, err := strconv.ParseUint(name, 16, 64)
		if !ok || err != nil || len(name) != 16 {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		s.segments = append(s.segments, segment{number: n, size: info.Size()})
	}
	// ReadDir sorts by name, and so by number.
	for i := range s.segments {
		if err := q.checkVersion(s.segments[i].number); err != nil {
			return err
		}
	}
	if len(s.segments) == 0 {
		s.segments = []segment{{number: 1}}
	}
	last := &s.segments[len(s.segments)-1]
	f, err := os.OpenFile(segmentPath(q.dir, last.number), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	q.write.file = f
	if err := q.cutTail(f, last); err != nil {
		return err
	}
	for _, name := range q.o.Readers {
		c, err := loadCursor(q.dir, name)
		if err != nil {
			return err
		}
		q.clamp(c)
		s.cursors[name] = c
	}
	return q.retire()
}

// checkVersion refuses a segment of another layout. A head that was damaged or
// cut says nothing: its records are checked one by one anyway.
func (q *Queue) checkVersion(n uint64) error {
	f, err := os.Open(segmentPath(q.dir, n))
	if err != nil {
		return err
	}
	defer f.Close()
	var head [segmentHead]byte
	if _, err := io.ReadFull(f, head[:]); err != nil {
		return nil
	}
	v := len(segmentMagic) - 1
	if string(head[:v]) == segmentMagic[:v] && head[v] > segmentMagic[v] {
		return fmt.Errorf("segment %d, layout %d: %w", n, head[v], ErrVersion)
	}
	return nil
}

// cutTail ends the segment after its last whole record. What a crash tore off
// was never acknowledged to whoever appended it.
func (q *Queue) cutTail(f *os.File, s *segment) error {
	good := segmentHead
	for at := good; at < s.size; {
		h, err := headAt(f, s.number, at, s.size)
		if errors.Is(err, errDamaged) {
			// A record may follow that is whole: then this is damage, which the
			// readers count, and not a tear.
			if at, err = resync(f, s.number, at, s.size); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		at += frameHead + h.length
		good = at
	}
	q.state.torn = max(s.size-good, 0)
	if err := f.Truncate(good); err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte(segmentMagic), 0); err != nil {
		return err
	}
	s.size = good
	return errors.Join(f.Sync(), syncDir(q.dir))
}

// clamp moves a cursor that points outside of what there is.
func (q *Queue) clamp(c *cursor) {
	first, last := q.state.segments[0], q.state.segments[len(q.state.segments)-1]
	switch {
	case c.at.Segment < first.number:
		c.at = position{first.number, segmentHead}
	case c.at.Segment > last.number:
		c.at = position{last.number, last.size}
	case c.at.Segment == last.number:
		c.at.Offset = min(c.at.Offset, last.size)
	}
	c.at.Offset = max(c.at.Offset, segmentHead)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Append makes records durable: they are on the disk, synced, when it returns
// nil. Calls that come together share one sync. Without readers nothing is
// kept. An error means that these records are not in the queue; it counts them
// as lost to every reader.
func (q *Queue) Append(records ...Record) error {
	for i := range records {
		if n := int64(len(records[i].Payload)); n > maxPayload || segmentHead+frameHead+n > q.o.MaxBytes/2 {
			return fmt.Errorf("%w: %d bytes", ErrTooLarge, n)
		}
	}
	q.open.Lock()
	g := q.open.group
	g.records = append(g.records, records...)
	q.open.Unlock()

	q.write.Lock()
	defer q.write.Unlock()
	if g.done {
		return g.err
	}
	q.open.Lock()
	q.open.group = &group{}
	q.open.Unlock()
	g.done = true
	g.err = q.commit(g.records)
	g.records = nil
	return g.err
}

// commit writes the records of one group, segment by segment.
func (q *Queue) commit(records []Record) error {
	s := &q.state
	s.Lock()
	closed, idle := s.closed, len(s.cursors) == 0
	s.Unlock()
	if closed {
		return ErrClosed
	}
	if idle {
		return nil
	}
	for len(records) > 0 {
		n, err := q.commitSome(records)
		if err != nil {
			q.refuse(records)
			return err
		}
		records = records[n:]
	}
	return nil
}

// commitSome writes as many records as the current segment takes, at least one.
func (q *Queue) commitSome(records []Record) (int, error) {
	current := q.current()
	first := frameHead + int64(len(records[0].Payload))
	if current.size > segmentHead && current.size+first > q.o.SegmentBytes {
		if err := q.roll(); err != nil {
			return 0, err
		}
		current = q.current()
	}
	b, n := q.write.buf[:0], 0
	for n < len(records) {
		size := int64(len(b)) + frameHead + int64(len(records[n].Payload))
		if n > 0 && current.size+size > q.o.SegmentBytes {
			break
		}
		b = appendFrame(b, current.number, current.size+int64(len(b)), &records[n])
		n++
	}
	q.write.buf = b[:0]
	if cap(b) > 4<<20 {
		q.write.buf = nil
	}
	if err := q.makeRoom(int64(len(b))); err != nil {
		return 0, err
	}
	// Making room may have begun a new segment, and a frame belongs to its place.
	if now := q.current(); now.number != current.number {
		return q.commitSome(records)
	}
	if err := q.put(b, current); err != nil {
		return 0, err
	}
	s := &q.state
	s.Lock()
	s.segments[len(s.segments)-1].size += int64(len(b))
	s.appended += uint64(n)
	close(s.more)
	s.more = make(chan struct{})
	s.Unlock()
	return n, nil
}

// put writes and syncs at the end of the current segment. After a failure the
// file ends where it did, and another segment is begun: the kernel may have
// dropped what it could not write, so this file is not trusted with more.
func (q *Queue) put(b []byte, at segment) error {
	_, err := q.write.file.WriteAt(b, at.size)
	if err == nil {
		err = q.write.file.Sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("queue: append: %w", err), q.write.file.Truncate(at.size), q.roll())
	}
	return nil
}

func (q *Queue) current() segment {
	q.state.Lock()
	defer q.state.Unlock()
	return q.state.segments[len(q.state.segments)-1]
}

// roll begins a new segment.
func (q *Queue) roll() error {
	n := q.current().number + 1
	f, err := os.OpenFile(segmentPath(q.dir, n), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	if _, err := f.WriteAt([]byte(segmentMagic), 0); err != nil {
		return errors.Join(fmt.Errorf("queue: %w", err), f.Close(), os.Remove(f.Name()))
	}
	if err := syncDir(q.dir); err != nil {
		return errors.Join(fmt.Errorf("queue: %w", err), f.Close())
	}
	old := q.write.file
	q.write.file = f
	s := &q.state
	s.Lock()
	s.segments = append(s.segments, segment{number: n, size: segmentHead})
	err = q.retire()
	s.Unlock()
	return errors.Join(err, old.Close())
}

// refuse counts records that did not get in.
func (q *Queue) refuse(records []Record) {
	var l Loss
	for i := range records {
		r := &records[i]
		l.add(Loss{Items: r.Items, Records: 1, From: r.From, To: r.To})
	}
	s := &q.state
	s.Lock()
	defer s.Unlock()
	for _, c := range s.cursors {
		c.count(Disk, l)
	}
}

// Close ends the queue. Waiting readers return ErrClosed.
func (q *Queue) Close() error {
	q.write.Lock()
	defer q.write.Unlock()
	s := &q.state
	s.Lock()
	defer s.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.more)
	var errs []error
	for _, c := range s.cursors {
		errs = append(errs, c.save(q.dir))
	}
	return errors.Join(append(errs, q.write.file.Close())...)
}
