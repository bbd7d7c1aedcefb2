package fat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, at int64) (int, error) { return copy(m.b[at:], p), nil }

// list reads a file system back, the slow way: a second opinion of the format.
func list(t interface{ Fatalf(string, ...any) }, b []byte) map[string]string {
	le := binary.LittleEndian
	per, fatSectors := int(b[13]), int(le.Uint32(b[36:]))
	data := (int(le.Uint16(b[14:])) + 2*fatSectors) * sector
	one := b[int(le.Uint16(b[14:]))*sector:][:fatSectors*sector]
	if !bytes.Equal(one, b[int(le.Uint16(b[14:]))*sector+fatSectors*sector:][:fatSectors*sector]) {
		t.Fatalf("the two tables differ")
	}
	chain := func(c uint32) []byte {
		var out []byte
		for c >= 2 && c < 0x0ffffff8 {
			out = append(out, b[data+(int(c)-2)*per*sector:][:per*sector]...)
			c = le.Uint32(one[4*c:])
		}
		return out
	}
	found := map[string]string{}
	var walk func(dir string, c uint32)
	walk = func(dir string, c uint32) {
		rows, long := chain(c), []uint16(nil)
		for i := 0; i+32 <= len(rows) && rows[i] != 0; i += 32 {
			r := rows[i : i+32]
			first := uint32(le.Uint16(r[20:]))<<16 | uint32(le.Uint16(r[26:]))
			switch {
			case r[11] == 0x0f:
				var part []uint16
				for _, at := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
					if u := le.Uint16(r[at:]); u != 0 && u != 0xffff {
						part = append(part, u)
					}
				}
				long = append(part, long...)
				continue
			case r[11]&0x08 != 0 || r[0] == '.':
			default:
				name := strings.TrimSpace(string(r[:8]))
				if ext := strings.TrimSpace(string(r[8:11])); ext != "" {
					name += "." + ext
				}
				if long != nil {
					name = string(utf16.Decode(long))
				}
				if r[11]&0x10 != 0 {
					walk(dir+name+"/", first)
				} else {
					found[dir+name] = string(chain(first)[:le.Uint32(r[28:])])
				}
			}
			long = nil
		}
	}
	walk("", le.Uint32(b[44:]))
	return found
}

const size = 36 << 20

func TestWrite(t *testing.T) {
	files := []File{
		{"EFI/BOOT/BOOTX64.EFI", []byte("loader")},
		{"EFI/Linux/patronus-1795573384.efi", bytes.Repeat([]byte("kernel"), 5000)},
		{"EFI/Linux/patronus-1795573385+3.efi", []byte("k2")},
		{"loader/loader.conf", []byte("timeout 0\n")},
		{"exactly13long", nil},
		{"patronus.yaml", []byte("fabric: acme\n")},
	}
	m := &memory{make([]byte, size)}
	if err := Write(m, 0, size, "PATRONUS", time.Unix(1795573384, 0), files); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, f := range files {
		want[f.Name] = string(f.Data)
	}
	if d := cmp.Diff(want, list(t, m.b)); d != "" {
		t.Error(d)
	}
	again := &memory{make([]byte, size)}
	if err := Write(again, 0, size, "PATRONUS", time.Unix(1795573384, 0), files); err != nil || !bytes.Equal(m.b, again.b) {
		t.Error("two builds differ", err)
	}
}

func TestRefuses(t *testing.T) {
	m := &memory{make([]byte, size)}
	for name, err := range map[string]error{
		"too small":    Write(m, 0, 1<<20, "X", time.Time{}, nil),
		"label":        Write(m, 0, size, "A LABEL TOO LONG", time.Time{}, nil),
		"files larger": Write(m, 0, size, "X", time.Time{}, []File{{"a", make([]byte, size)}}),
	} {
		if !errors.Is(err, ErrSize) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if Write(m, 0, size, "X", time.Time{}, []File{{"a", nil}, {"A/b", nil}}) == nil {
		t.Error("a file that is a directory: accepted")
	}
}

func TestAnyFiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := map[string]string{}
		var files []File
		for i := range rapid.IntRange(0, 8).Draw(t, "n") {
			name := fmt.Sprintf("%s%d%s", rapid.StringMatching(`([a-z]{1,12}/)?[A-Za-z+._-]{1,30}`).Draw(t, "name"), i, rapid.SampledFrom([]string{"", ".efi", ".yaml"}).Draw(t, "ext"))
			body := rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "data")
			want[name] = string(body)
			files = append(files, File{name, body})
		}
		m := &memory{make([]byte, size)}
		if err := Write(m, 0, size, "X", time.Unix(1, 0), files); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, list(t, m.b)); d != "" {
			t.Fatal(d)
		}
	})
}
