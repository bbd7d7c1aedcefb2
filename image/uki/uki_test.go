package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"testing"
)

// stub is the smallest PE32+ file that debug/pe reads: one section.
func stub() []byte {
	b := make([]byte, 0x400)
	le := binary.LittleEndian
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], 0x80)
	copy(b[0x80:], "PE\x00\x00")
	le.PutUint16(b[0x84:], 0x8664)
	le.PutUint16(b[0x86:], 1)
	le.PutUint16(b[0x94:], 240)
	o := b[0x98:]
	le.PutUint16(o, 0x20b)
	le.PutUint32(o[32:], 0x1000)
	le.PutUint32(o[36:], 0x200)
	le.PutUint32(o[56:], 0x2000)
	le.PutUint32(o[60:], 0x400)
	le.PutUint32(o[108:], 16)
	h := b[0x98+240:]
	copy(h, ".text")
	le.PutUint32(h[8:], 3)
	le.PutUint32(h[12:], 0x1000)
	le.PutUint32(h[16:], 0x200)
	le.PutUint32(h[20:], 0x400)
	return append(b, "ret"...)
}

func TestBuild(t *testing.T) {
	sections := []Section{{".osrel", []byte("ID=patronus\n")}, {".linux", bytes.Repeat([]byte{1}, 5000)}, {".initrd", []byte{2}}}
	out, err := Build(stub(), sections)
	if err != nil {
		t.Fatal(err)
	}
	f, err := pe.NewFile(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	end := uint32(0)
	for i, s := range f.Sections {
		if s.VirtualAddress%0x1000 != 0 || s.VirtualAddress < end || s.Offset%0x200 != 0 {
			t.Errorf("%s at %#x, file %#x: overlaps or is not aligned", s.Name, s.VirtualAddress, s.Offset)
		}
		end = s.VirtualAddress + s.VirtualSize
		if i == 0 {
			continue
		}
		data, err := s.Data()
		if err != nil || s.Name != sections[i-1].Name || !bytes.Equal(data[:s.VirtualSize], sections[i-1].Data) {
			t.Errorf("section %d: %s, %v", i, s.Name, err)
		}
	}
	if size := f.OptionalHeader.(*pe.OptionalHeader64).SizeOfImage; size < end || size%0x1000 != 0 {
		t.Errorf("size of image %#x", size)
	}
	again, _ := Build(stub(), sections)
	if !bytes.Equal(out, again) {
		t.Error("two builds differ")
	}
}

func TestRefuses(t *testing.T) {
	for _, b := range [][]byte{nil, []byte("MZ"), make([]byte, 4096), stub()[:0x90]} {
		if _, err := Build(b, nil); !errors.Is(err, ErrStub) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	}
	if _, err := Build(stub(), make([]Section, 20)); !errors.Is(err, ErrStub) {
		t.Errorf("too many: %v", err)
	}
}

func FuzzBuild(f *testing.F) {
	f.Add(stub())
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = Build(b, []Section{{".linux", []byte{1}}})
	})
}
