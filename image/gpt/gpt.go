package gpt

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"unicode/utf16"
)

// SectorSize is the only one that is supported, bytes.
const SectorSize = 512

// HeadSectors are the sectors at the start of a disk that a table takes
// (protective MBR, header, 128 entries); TailSectors those at its end.
const (
	HeadSectors = 2 + TailSectors - 1
	TailSectors = 33

	entries   = 128
	entrySize = 128
	signature = "EFI PART"
)

// ErrTable means that there is no table that can be trusted.
var ErrTable = errors.New("no valid GPT")

// GUID is in the order in which it is written on the disk.
type GUID [16]byte

// ParseGUID reads the usual form with dashes.
func ParseGUID(text string) (GUID, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(b) != 16 {
		return GUID{}, fmt.Errorf("not a GUID: %q", text)
	}
	g := GUID(b)
	// The first three fields are little-endian (UEFI, appendix A).
	for _, f := range [][2]int{{0, 4}, {4, 6}, {6, 8}} {
		for i, j := f[0], f[1]-1; i < j; i, j = i+1, j-1 {
			g[i], g[j] = g[j], g[i]
		}
	}
	return g, nil
}

// Partition is one row of the table; First and Last are sectors, both included.
type Partition struct {
	Type, ID    GUID
	First, Last uint64
	Attributes  uint64
	Name        string // at most 36 UTF-16 units
}

// Table is a disk's partitions.
type Table struct {
	Disk       GUID
	Sectors    uint64 // of the whole disk
	Partitions []Partition
}

// Head is what stands in the first HeadSectors of the disk.
func (t *Table) Head() []byte {
	b := make([]byte, HeadSectors*SectorSize)
	copy(b, t.protectiveMBR())
	rows := t.rows()
	copy(b[SectorSize:], t.header(1, t.Sectors-1, 2, rows))
	copy(b[2*SectorSize:], rows)
	return b
}

// Tail is what stands in the last TailSectors of the disk.
func (t *Table) Tail() []byte {
	rows := t.rows()
	b := make([]byte, TailSectors*SectorSize)
	copy(b, rows)
	copy(b[(TailSectors-1)*SectorSize:], t.header(t.Sectors-1, 1, t.Sectors-TailSectors, rows))
	return b
}

func (t *Table) protectiveMBR() []byte {
	b := make([]byte, SectorSize)
	b[446+4] = 0xee
	copy(b[446+1:], []byte{0x00, 0x02, 0x00})
	copy(b[446+5:], []byte{0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(b[446+8:], 1)
	binary.LittleEndian.PutUint32(b[446+12:], uint32(min(t.Sectors-1, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
	return b
}

func (t *Table) rows() []byte {
	b := make([]byte, entries*entrySize)
	for i, p := range t.Partitions {
		e := b[i*entrySize:]
		copy(e, p.Type[:])
		copy(e[16:], p.ID[:])
		binary.LittleEndian.PutUint64(e[32:], p.First)
		binary.LittleEndian.PutUint64(e[40:], p.Last)
		binary.LittleEndian.PutUint64(e[48:], p.Attributes)
		for j, u := range utf16.Encode([]rune(p.Name)) {
			if j < 36 {
				binary.LittleEndian.PutUint16(e[56+2*j:], u)
			}
		}
	}
	return b
}

func (t *Table) header(own, other, rowsAt uint64, rows []byte) []byte {
	h := make([]byte, SectorSize)
	copy(h, signature)
	le := binary.LittleEndian
	le.PutUint32(h[8:], 0x00010000)
	le.PutUint32(h[12:], 92)
	le.PutUint64(h[24:], own)
	le.PutUint64(h[32:], other)
	le.PutUint64(h[40:], HeadSectors)
	le.PutUint64(h[48:], t.Sectors-TailSectors-1)
	copy(h[56:], t.Disk[:])
	le.PutUint64(h[72:], rowsAt)
	le.PutUint32(h[80:], entries)
	le.PutUint32(h[84:], entrySize)
	le.PutUint32(h[88:], crc32.ChecksumIEEE(rows))
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
	return h
}

// Parse reads the table from the first HeadSectors of a disk. A table whose
// checksums are wrong is ErrTable.
func Parse(head []byte) (*Table, error) {
	if len(head) < HeadSectors*SectorSize {
		return nil, fmt.Errorf("%w: too short", ErrTable)
	}
	h := bytes.Clone(head[SectorSize : SectorSize+92])
	le := binary.LittleEndian
	sum := le.Uint32(h[16:])
	le.PutUint32(h[16:], 0)
	rows := head[2*SectorSize : HeadSectors*SectorSize]
	switch {
	case string(h[:8]) != signature:
		return nil, fmt.Errorf("%w: no signature", ErrTable)
	case le.Uint32(h[12:]) != 92 || crc32.ChecksumIEEE(h) != sum:
		return nil, fmt.Errorf("%w: checksum of the header", ErrTable)
	case le.Uint64(h[72:]) != 2 || le.Uint32(h[80:]) != entries || le.Uint32(h[84:]) != entrySize:
		return nil, fmt.Errorf("%w: not the shape that this image has", ErrTable)
	case crc32.ChecksumIEEE(rows) != le.Uint32(h[88:]):
		return nil, fmt.Errorf("%w: checksum of the entries", ErrTable)
	}
	t := &Table{Disk: GUID(h[56:72]), Sectors: le.Uint64(h[32:]) + 1}
	for i := range entries {
		e := rows[i*entrySize:]
		p := Partition{Type: GUID(e[:16]), ID: GUID(e[16:32]), First: le.Uint64(e[32:]), Last: le.Uint64(e[40:]), Attributes: le.Uint64(e[48:])}
		if p.Type == (GUID{}) {
			continue
		}
		if p.First < HeadSectors || p.Last < p.First || p.Last >= t.Sectors-min(TailSectors, t.Sectors) {
			return nil, fmt.Errorf("%w: partition %d is outside the disk", ErrTable, i+1)
		}
		var name []uint16
		for j := range 36 {
			if u := le.Uint16(e[56+2*j:]); u != 0 {
				name = append(name, u)
			}
		}
		p.Name = string(utf16.Decode(name))
		t.Partitions = append(t.Partitions, p)
	}
	return t, nil
}

// Grow is the table for a disk of that many sectors, with the last partition
// grown to its end (to a whole MiB). It reports false if nothing would change.
func (t *Table) Grow(sectors uint64) (*Table, bool) {
	const align = 2048
	if sectors <= t.Sectors || len(t.Partitions) == 0 {
		return t, false
	}
	g := &Table{Disk: t.Disk, Sectors: sectors, Partitions: append([]Partition(nil), t.Partitions...)}
	last := &g.Partitions[0]
	for i := range g.Partitions {
		if g.Partitions[i].First > last.First {
			last = &g.Partitions[i]
		}
	}
	end := (sectors - TailSectors) / align * align
	if end <= last.Last+1 {
		return t, false
	}
	last.Last = end - 1
	return g, true
}
