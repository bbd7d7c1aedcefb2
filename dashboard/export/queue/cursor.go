package queue

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// position is a place between two records.
type position struct {
	Segment uint64 `json:"segment"`
	Offset  int64  `json:"offset"`
}

func (p position) compare(o position) int {
	return cmp.Or(cmp.Compare(p.Segment, o.Segment), cmp.Compare(p.Offset, o.Offset))
}

// Loss is what a reader will never get.
type Loss struct {
	Reader string `json:"reader"`
	// Why is "bound": the queue was full; "disk": the file system was;
	// "damaged": a record did not match its checksum; "refused": the engine
	// did not want these items and never will (From and To are those of the
	// records they were in).
	Why string `json:"why"`
	Items
	Records uint64 `json:"records"`
	// Bytes of records whose heads were damaged: how many items they held is
	// not known.
	Unknown uint64 `json:"unknown_bytes,omitempty"`
	// From and To are the times that the lost records cover, Unix ms.
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// The values of Loss.Why.
const (
	Bound   = "bound"
	Disk    = "disk"
	Damaged = "damaged"
	Refused = "refused"
)

func (l *Loss) empty() bool { return l.Records == 0 && l.Unknown == 0 }

func (l *Loss) addFrame(f *frame) { l.add(Loss{Items: f.items, Records: 1, From: f.from, To: f.to}) }

func (l *Loss) add(o Loss) {
	if o.Records > 0 {
		if l.Records == 0 {
			l.From, l.To = o.From, o.To
		}
		l.From, l.To = min(l.From, o.From), max(l.To, o.To)
	}
	l.Items.add(o.Items)
	l.Records += o.Records
	l.Unknown += o.Unknown
}

// cursor is one reader's place and account. The queue's mutex guards it.
type cursor struct {
	name string
	at   position
	// lost is by reason, since the cursor exists; unreported is what nobody
	// has taken to report.
	lost, unreported map[string]Loss
	// flying is the end of the batch that is being delivered; doubtful is what
	// of it was removed meanwhile: lost unless the delivery succeeds.
	flying   position
	doubtful map[string]Loss
}

// cursorFile is a cursor on disk: this as one line of JSON, and its CRC32C.
type cursorFile struct {
	At         position        `json:"at"`
	Lost       map[string]Loss `json:"lost,omitempty"`
	Unreported map[string]Loss `json:"unreported,omitempty"`
	Doubtful   map[string]Loss `json:"doubtful,omitempty"`
}

func newCursor(name string) *cursor {
	return &cursor{name: name, lost: map[string]Loss{}, unreported: map[string]Loss{}, doubtful: map[string]Loss{}}
}

func (c *cursor) count(why string, l Loss) {
	if l.empty() {
		return
	}
	for _, m := range []map[string]Loss{c.lost, c.unreported} {
		sum := m[why]
		sum.add(l)
		m[why] = sum
	}
}

// settle turns what was doubtful into a loss.
func (c *cursor) settle() {
	for why, l := range c.doubtful {
		c.count(why, l)
	}
	clear(c.doubtful)
}

var readerName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

func cursorPath(dir, name string) string { return filepath.Join(dir, name+".cursor") }

// loadCursor reads a cursor. A missing or damaged file gives a new cursor at
// the beginning: the reader gets again what is there, and loses nothing.
func loadCursor(dir, name string) (*cursor, error) {
	c := newCursor(name)
	text, err := os.ReadFile(cursorPath(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cursor %s: %w", name, err)
	}
	body, sum, _ := strings.Cut(string(text), "\n")
	want, err := strconv.ParseUint(strings.TrimSpace(sum), 16, 32)
	if err != nil || uint32(want) != crc32.Checksum([]byte(body), castagnoli) {
		return c, nil
	}
	var f cursorFile
	if json.Unmarshal([]byte(body), &f) != nil {
		return c, nil
	}
	c.at = f.At
	for why, l := range f.Lost {
		c.lost[why] = l
	}
	for why, l := range f.Unreported {
		c.unreported[why] = l
	}
	for why, l := range f.Doubtful {
		c.doubtful[why] = l
	}
	// Whoever was delivering it is gone.
	c.settle()
	return c, nil
}

// save writes the cursor beside itself and renames it into place.
func (c *cursor) save(dir string) error {
	body, err := json.Marshal(cursorFile{At: c.at, Lost: c.lost, Unreported: c.unreported, Doubtful: c.doubtful})
	if err != nil {
		return fmt.Errorf("cursor %s: %w", c.name, err)
	}
	text := fmt.Appendf(body, "\n%08x\n", crc32.Checksum(body, castagnoli))
	name := cursorPath(dir, c.name)
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("cursor %s: %w", c.name, err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("cursor %s: %w", c.name, err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("cursor %s: %w", c.name, err)
	}
	return nil
}
