package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// The log holds what is appended until it is sealed: segments of records, each
// with its length, checksum and number. See FORMAT.md.
//
//	magic 4 | length 4 | crc32c 4 | lsn 8 | payload
const (
	logMagic   = 0x50_4c_4f_47 // "PLOG"
	logHeader  = 20
	logSegment = 8 << 20 // bytes after which a segment is full
	logSuffix  = ".log"
	maxPayload = 64 << 20
)

// castagnoli has hardware support on all machines that matter.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// appendLog is the log that is written to. Methods other than sync need the
// store's mutex.
type appendLog struct {
	dir      string
	file     *os.File // changes under syncing as well
	segment  uint64   // number of the current one
	size     int64
	lsn      atomic.Uint64 // of the newest record
	table    *crc32.Table
	segments []segment // older ones
	buf      []byte

	// One sync serves all that were written before it.
	syncing sync.Mutex
	synced  uint64 // LSN, guarded by syncing
	failed  error  // guarded by syncing: once a sync failed nothing is known of what was written
}

// segment is a file of the log that is no longer written to.
type segment struct {
	number uint64
	lsn    uint64 // of its newest record
}

func segmentName(n uint64) string { return fmt.Sprintf("%016x%s", n, logSuffix) }

// listSegments lists the numbers of the segments in dir, oldest first.
func listSegments(dir string) ([]uint64, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list log: %w", err)
	}
	var out []uint64
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), logSuffix)
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(name, 16, 64); err == nil && len(name) == 16 {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}

// rotate begins a new segment.
func (l *appendLog) rotate() error {
	next := l.segment + 1
	f, err := os.OpenFile(filepath.Join(l.dir, segmentName(next)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return noSpace("begin log segment", err)
	}
	l.syncing.Lock()
	defer l.syncing.Unlock()
	if l.file != nil {
		// The old one is synced here, so that sync needs to know of one file only.
		if err := unix.Fdatasync(int(l.file.Fd())); err != nil && l.failed == nil {
			l.failed = fmt.Errorf("sync log: %w", err)
		} else {
			l.synced = l.lsn.Load()
		}
		_ = l.file.Close()
		l.segments = append(l.segments, segment{l.segment, l.lsn.Load()})
	}
	l.file, l.segment, l.size, l.failed = f, next, 0, nil
	return syncDir(l.dir)
}

// frame fills in the header of a record whose payload is b[logHeader:].
func frame(l *appendLog, b []byte, lsn uint64) []byte {
	binary.BigEndian.PutUint32(b, logMagic)
	binary.BigEndian.PutUint32(b[4:], uint32(len(b)-logHeader))
	binary.BigEndian.PutUint64(b[12:], lsn)
	binary.BigEndian.PutUint32(b[8:], crc32.Checksum(b[12:], l.table))
	return b
}

// write appends a record whose payload is l.buf[logHeader:]. On an error
// nothing of it will ever be read.
func (l *appendLog) write() (lsn uint64, err error) {
	if l.file == nil || l.size >= logSegment {
		if err := l.rotate(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(frame(l, l.buf, l.lsn.Load()+1))
	if err != nil {
		if n > 0 {
			// A torn record is skipped when the log is read, but it takes space.
			_ = l.file.Truncate(l.size)
			_, _ = l.file.Seek(l.size, 0)
		}
		return 0, noSpace("append to log", err)
	}
	l.size += int64(n)
	return l.lsn.Add(1), nil
}

// sync returns when the record lsn is on the disk. Concurrent calls share one
// fdatasync(2).
func (l *appendLog) sync(lsn uint64) error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	if l.failed != nil {
		return l.failed
	}
	if l.synced >= lsn {
		return nil
	}
	if l.file == nil {
		return ErrClosed
	}
	upTo := l.lsn.Load() // what is not in this file was synced when it was rotated
	if err := unix.Fdatasync(int(l.file.Fd())); err != nil {
		l.failed = fmt.Errorf("sync log: %w", err)
		return l.failed
	}
	l.synced = max(l.synced, upTo)
	return nil
}

// drop deletes older segments that keep nothing newer than lsn.
func (l *appendLog) drop(lsn uint64) error {
	kept := l.segments[:0]
	var errs []error
	for _, s := range l.segments {
		if s.lsn > lsn {
			kept = append(kept, s)
			continue
		}
		if err := os.Remove(filepath.Join(l.dir, segmentName(s.number))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	l.segments = kept
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("drop log segments: %w", err)
	}
	return nil
}

func (l *appendLog) close() error {
	if l.file == nil {
		return nil
	}
	l.syncing.Lock()
	defer l.syncing.Unlock()
	err := errors.Join(unix.Fdatasync(int(l.file.Fd())), l.file.Close())
	l.synced = l.lsn.Load()
	l.file = nil
	if err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}

// readSegment passes the records of a segment to f. A torn or damaged record is
// skipped: reading goes on at the next one that is whole. lost is how many
// octets were skipped before another whole record, torn how many at the end:
// they may be a write that was never acknowledged.
func readSegment(b []byte, table *crc32.Table, f func(lsn uint64, payload []byte) error) (lost, torn int, err error) {
	skipped := 0
	for len(b) >= logHeader {
		n := int(binary.BigEndian.Uint32(b[4:]))
		if binary.BigEndian.Uint32(b) != logMagic || n > maxPayload || n > len(b)-logHeader ||
			binary.BigEndian.Uint32(b[8:]) != crc32.Checksum(b[12:logHeader+n], table) {
			b = b[1:]
			skipped++
			continue
		}
		lost += skipped
		skipped = 0
		if err := f(binary.BigEndian.Uint64(b[12:]), b[logHeader:logHeader+n]); err != nil {
			return lost, 0, err
		}
		b = b[logHeader+n:]
	}
	return lost, skipped + len(b), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	err = errors.Join(d.Sync(), d.Close())
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// noSpace wraps an error of a write, as ErrNoSpace if it is one.
func noSpace(what string, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%s: %w: %w", what, ErrNoSpace, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
