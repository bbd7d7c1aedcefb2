// Package fat owns new FAT32 file systems: it writes one with files in it, the
// same bytes from the same files (Microsoft, FAT32 File System Specification
// 1.03). It neither reads nor changes one that exists; on an appliance the
// kernel does.
package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf16"
)

// File is one file; Name is a path with slashes, relative to the root.
type File struct {
	Name string
	Data []byte
}

// ErrSize means that a file system of that size cannot be FAT32, or that the
// files do not fit into it.
var ErrSize = errors.New("size does not suit FAT32")

const (
	sector   = 512
	reserved = 32
	leastFAT = 65525 // clusters; fewer would be FAT16
	endMark  = 0x0fffffff
)

// Write writes a file system of size bytes at an offset of w, which must read
// as zeros there. Label has at most 11 bytes; at is the time of all files.
func Write(w io.WriterAt, offset, size int64, label string, at time.Time, files []File) error {
	b := &builder{w: w, offset: offset, at: at, perCluster: 8}
	sectors := size / sector
	if sectors/8 < leastFAT+leastFAT/64 {
		b.perCluster = 1
	}
	fatSectors := (sectors/b.perCluster*4 + sector - 1) / sector
	b.first = reserved + 2*fatSectors
	clusters := (sectors - b.first) / b.perCluster
	if clusters < leastFAT || len(label) > 11 {
		return fmt.Errorf("%w: %d bytes, label %q", ErrSize, size, label)
	}
	b.fat = []uint32{0x0ffffff8, endMark}
	b.limit = uint32(clusters) + 2
	root, err := tree(files)
	if err != nil {
		return err
	}
	b.alloc(b.clusters(directorySize(root))) // the root directory begins at cluster 2
	if err := b.directory(root, 2, 0, label); err != nil {
		return err
	}
	return b.finish(sectors, fatSectors, label)
}

// node is a directory or a file.
type node struct {
	name string
	data []byte
	dir  bool
	sub  []*node
}

func tree(files []File) (*node, error) {
	root := &node{dir: true}
	for _, f := range files {
		at := root
		clean := path.Clean(strings.TrimPrefix(f.Name, "/"))
		parts := strings.Split(clean, "/")
		for i, part := range parts {
			j := slices.IndexFunc(at.sub, func(n *node) bool { return strings.EqualFold(n.name, part) })
			last := i == len(parts)-1
			if j < 0 {
				at.sub = append(at.sub, &node{name: part, dir: !last})
				j = len(at.sub) - 1
			}
			at = at.sub[j]
			if at.dir == last {
				return nil, fmt.Errorf("fat: %s is given twice, or is a file and a directory", f.Name)
			}
		}
		at.data = f.Data
	}
	return root, nil
}

type builder struct {
	w          io.WriterAt
	offset     int64
	at         time.Time
	perCluster int64
	first      int64 // sector of cluster 2
	fat        []uint32
	limit      uint32
}

// alloc takes n clusters in a row and returns the first.
func (b *builder) alloc(n int) uint32 {
	start := uint32(len(b.fat))
	for i := range n {
		next := start + uint32(i) + 1
		if i == n-1 {
			next = endMark
		}
		b.fat = append(b.fat, next)
	}
	return start
}

// directorySize is what a directory takes at most, bytes: each name a long one.
func directorySize(n *node) int { return (2 + len(n.sub)*(1+20)) * 32 }

// clusters is how many hold size bytes.
func (b *builder) clusters(size int) int { return (size + b.clusterSize() - 1) / b.clusterSize() }

func (b *builder) clusterSize() int { return int(b.perCluster) * sector }

func (b *builder) put(cluster uint32, data []byte) error {
	if uint32(len(b.fat)) > b.limit {
		return fmt.Errorf("%w: the files are larger", ErrSize)
	}
	_, err := b.w.WriteAt(data, b.offset+(b.first+int64(cluster-2)*b.perCluster)*sector)
	return err
}

// directory writes a directory that begins at a cluster, and all below it.
func (b *builder) directory(n *node, own, parent uint32, label string) error {
	var rows []byte
	if label != "" {
		rows = append(rows, b.row(pad11(label), 0x08, 0, 0)...)
	} else {
		rows = append(rows, b.row(pad11("."), 0x10, own, 0)...)
		rows = append(rows, b.row(pad11(".."), 0x10, parent, 0)...)
	}
	used := map[[11]byte]bool{}
	for _, s := range n.sub {
		short, long := shortName(s.name, used)
		first := uint32(0)
		size := len(s.data)
		if s.dir {
			size = directorySize(s)
		}
		if size > 0 {
			first = b.alloc(b.clusters(size))
		}
		if long {
			rows = append(rows, longRows(s.name, short)...)
		}
		if !s.dir {
			rows = append(rows, b.row(short, 0x20, first, len(s.data))...)
			if size > 0 {
				if err := b.put(first, s.data); err != nil {
					return err
				}
			}
			continue
		}
		rows = append(rows, b.row(short, 0x10, first, 0)...)
		up := own
		if label != "" {
			up = 0 // the root is written as cluster 0
		}
		if err := b.directory(s, first, up, ""); err != nil {
			return err
		}
	}
	return b.put(own, rows)
}

// row is one directory entry.
func (b *builder) row(name [11]byte, attributes byte, first uint32, size int) []byte {
	r := make([]byte, 32)
	copy(r, name[:])
	r[11] = attributes
	t := b.at.UTC()
	date := uint16(max(t.Year()-1980, 0)<<9 | int(t.Month())<<5 | t.Day())
	clock := uint16(t.Hour()<<11 | t.Minute()<<5 | t.Second()/2)
	le := binary.LittleEndian
	le.PutUint16(r[14:], clock)
	le.PutUint16(r[16:], date)
	le.PutUint16(r[18:], date)
	le.PutUint16(r[20:], uint16(first>>16))
	le.PutUint16(r[22:], clock)
	le.PutUint16(r[24:], date)
	le.PutUint16(r[26:], uint16(first))
	le.PutUint32(r[28:], uint32(size))
	return r
}

func pad11(s string) [11]byte {
	var n [11]byte
	copy(n[:], "           ")
	copy(n[:], s)
	return n
}

// shortName is the 8.3 name of a file, and whether it needs a long one too.
func shortName(name string, used map[[11]byte]bool) (short [11]byte, long bool) {
	base, ext := name, ""
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		base, ext = name[:i], name[i+1:]
	}
	clean := func(s string, n int) string {
		s = strings.Map(func(r rune) rune {
			if r > 0x7e || strings.ContainsRune(` .+,;=[]"*/:<>?\|`, r) {
				return '_'
			}
			return r
		}, strings.ToUpper(s))
		return s[:min(len(s), n)]
	}
	b, e := clean(base, 8), clean(ext, 3)
	short = pad11(b)
	copy(short[8:], e)
	long = name != b+"."+e && name != b
	for i := 1; long || used[short]; i++ {
		tail := fmt.Sprintf("~%d", i)
		short = pad11(b[:min(len(b), 8-len(tail))] + tail)
		copy(short[8:], e)
		long = true
		if !used[short] {
			break
		}
	}
	used[short] = true
	return short, long
}

// longRows are the entries of a long name, which stand before the short one.
func longRows(name string, short [11]byte) []byte {
	var sum byte
	for _, c := range short {
		sum = sum>>1 | sum<<7
		sum += c
	}
	units := utf16.Encode([]rune(name))
	if len(units)%13 != 0 {
		units = append(units, 0)
	}
	for len(units)%13 != 0 {
		units = append(units, 0xffff)
	}
	count := len(units) / 13
	var rows []byte
	for i := count - 1; i >= 0; i-- {
		r := make([]byte, 32)
		r[0] = byte(i + 1)
		if i == count-1 {
			r[0] |= 0x40
		}
		r[11], r[13] = 0x0f, sum
		for j := range 13 {
			at := 1 + 2*j
			switch {
			case j >= 11:
				at = 28 + 2*(j-11)
			case j >= 5:
				at = 14 + 2*(j-5)
			}
			binary.LittleEndian.PutUint16(r[at:], units[i*13+j])
		}
		rows = append(rows, r...)
	}
	return rows
}

// finish writes both tables, the boot sector and their copies.
func (b *builder) finish(sectors, fatSectors int64, label string) error {
	if uint32(len(b.fat)) > b.limit {
		return fmt.Errorf("%w: the files are larger", ErrSize)
	}
	le := binary.LittleEndian
	table := make([]byte, 4*len(b.fat))
	for i, v := range b.fat {
		le.PutUint32(table[4*i:], v)
	}
	boot := make([]byte, sector)
	copy(boot, "\xeb\x58\x90PATRONUS")
	le.PutUint16(boot[11:], sector)
	boot[13] = byte(b.perCluster)
	le.PutUint16(boot[14:], reserved)
	boot[16], boot[21] = 2, 0xf8
	le.PutUint16(boot[24:], 63)
	le.PutUint16(boot[26:], 255)
	le.PutUint32(boot[28:], uint32(b.offset/sector))
	le.PutUint32(boot[32:], uint32(sectors))
	le.PutUint32(boot[36:], uint32(fatSectors))
	le.PutUint32(boot[44:], 2)
	le.PutUint16(boot[48:], 1)
	le.PutUint16(boot[50:], 6)
	boot[64], boot[66] = 0x80, 0x29
	le.PutUint32(boot[67:], uint32(b.at.Unix()))
	name := pad11(label)
	copy(boot[71:], name[:])
	copy(boot[82:], "FAT32   ")
	boot[510], boot[511] = 0x55, 0xaa
	info := make([]byte, sector)
	copy(info, "RRaA")
	copy(info[484:], "rrAa")
	le.PutUint32(info[488:], b.limit-uint32(len(b.fat)))
	le.PutUint32(info[492:], uint32(len(b.fat)))
	info[510], info[511] = 0x55, 0xaa
	for _, p := range []struct {
		at   int64
		data []byte
	}{{0, boot}, {1, info}, {6, boot}, {7, info}, {reserved, table}, {reserved + fatSectors, table}} {
		if _, err := b.w.WriteAt(p.data, b.offset+p.at*sector); err != nil {
			return err
		}
	}
	return nil
}
