package simulate

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// ErrFormat is wrapped by errors about recorded flows that cannot be read.
var ErrFormat = errors.New("recorded flows")

// Bounds of a packed file, against hostile ones.
const (
	maxFrame   = 1 << 20
	maxParty   = 64 << 10
	maxParties = 1 << 20
	maxNames   = 1 << 20
	batchSize  = 8192 // records of a frame that Writer writes
)

const magic = "PFLOWS1\n"

const (
	frameParty   = 1
	frameName    = 2
	frameRecords = 3
	frameHeader  = 12
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Writer writes a packed file. It is not safe for concurrent use.
type Writer struct {
	w       *bufio.Writer
	parties map[string]uint32
	names   map[string]uint32
	records []byte
	err     error
}

// NewWriter starts a packed file on w.
func NewWriter(w io.Writer) *Writer {
	out := &Writer{w: bufio.NewWriterSize(w, 1<<16), parties: map[string]uint32{}, names: map[string]uint32{}}
	_, out.err = out.w.WriteString(magic)
	return out
}

// Party numbers a party, and writes it the first time. nil is Nowhere.
func (w *Writer) Party(p *Party) (uint32, error) {
	if p == nil {
		return Nowhere, nil
	}
	text, err := json.Marshal(p)
	if err != nil {
		return Nowhere, fmt.Errorf("%w: party: %w", ErrFormat, err)
	}
	if len(text) > maxParty {
		return Nowhere, fmt.Errorf("%w: a party of %d bytes, at most %d are kept", ErrFormat, len(text), maxParty)
	}
	return w.intern(w.parties, frameParty, text, maxParties)
}

// Name numbers a policy's ID, and writes it the first time. "" is NoName.
func (w *Writer) Name(id string) (uint32, error) {
	if id == "" {
		return NoName, nil
	}
	return w.intern(w.names, frameName, []byte(id), maxNames)
}

func (w *Writer) intern(known map[string]uint32, kind byte, text []byte, most int) (uint32, error) {
	if i, ok := known[string(text)]; ok {
		return i, nil
	}
	if len(known) == most {
		return Nowhere, fmt.Errorf("%w: more than %d different parties or names", ErrFormat, most)
	}
	i := uint32(len(known))
	known[string(text)] = i
	// Records already taken may be written after it: they do not refer to it.
	w.frame(kind, text)
	return i, w.err
}

// Write adds a record, whose indexes this writer gave.
func (w *Writer) Write(r *Record) error {
	n := len(w.records)
	w.records = append(w.records, make([]byte, recordSize)...)
	r.encode(w.records[n:])
	if len(w.records) >= batchSize*recordSize {
		w.flush()
	}
	return w.err
}

func (w *Writer) flush() {
	if len(w.records) > 0 {
		w.frame(frameRecords, w.records)
		w.records = w.records[:0]
	}
}

func (w *Writer) frame(kind byte, payload []byte) {
	var head [frameHeader]byte
	head[0] = kind
	binary.LittleEndian.PutUint32(head[4:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(head[8:], crc32.Checksum(payload, castagnoli))
	for _, b := range [][]byte{head[:], payload} {
		if w.err == nil {
			_, w.err = w.w.Write(b)
		}
	}
}

// Close writes what is buffered. It does not close the file.
func (w *Writer) Close() error {
	w.flush()
	if w.err == nil {
		w.err = w.w.Flush()
	}
	return w.err
}

// frameReader reads a packed file frame by frame.
type frameReader struct {
	r      *bufio.Reader
	offset int64
	buf    []byte // of dictionary frames
}

// next reads a frame. The payload of records is freshly taken from take, of
// other kinds it is borrowed until the next call. io.EOF is a proper end.
func (f *frameReader) next(take func(n int) []byte) (kind byte, payload []byte, err error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return 0, nil, io.EOF
		}
		return 0, nil, f.failf("%w", err)
	}
	kind = head[0]
	n := int(binary.LittleEndian.Uint32(head[4:]))
	switch {
	case kind < frameParty || kind > frameRecords || head[1]|head[2]|head[3] != 0:
		return 0, nil, f.failf("unknown frame")
	case n > maxFrame, kind == frameParty && n > maxParty:
		return 0, nil, f.failf("a frame of %d bytes", n)
	case kind == frameRecords && n%recordSize != 0:
		return 0, nil, f.failf("%d bytes are not whole records", n)
	}
	if kind == frameRecords {
		payload = take(n)
	} else {
		if cap(f.buf) < n {
			f.buf = make([]byte, n)
		}
		payload = f.buf[:n]
	}
	if _, err := io.ReadFull(f.r, payload); err != nil {
		return 0, nil, f.failf("ends inside a frame: %w", io.ErrUnexpectedEOF)
	}
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(head[8:]) {
		return 0, nil, f.failf("checksum of a frame is wrong")
	}
	f.offset += int64(frameHeader + n)
	return kind, payload, nil
}

func (f *frameReader) failf(format string, args ...any) error {
	return fmt.Errorf("%w: at byte %d: %w", ErrFormat, f.offset+int64(len(magic)), fmt.Errorf(format, args...))
}
