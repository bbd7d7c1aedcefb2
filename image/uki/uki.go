// Package uki owns the one file that the firmware starts: a unified kernel
// image, that is systemd's EFI stub with a kernel, an initramfs, a command line
// and an os-release as PE sections (UAPI group, UKI specification).
//
// It builds bytes from bytes, the same from the same, and signs nothing.
package uki

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Section is one PE section to be added; Name has at most 8 bytes.
type Section struct {
	Name string
	Data []byte
}

// ErrStub means that the stub is no PE file that sections can be added to.
var ErrStub = errors.New("not a PE file that takes sections")

const (
	sectionHeader = 40
	// readable, initialised data (PE format, section flags).
	dataSection = 0x40000040
)

// Build adds sections to a stub (PE32+).
func Build(stub []byte, sections []Section) ([]byte, error) {
	le := binary.LittleEndian
	if len(stub) < 0x40 {
		return nil, ErrStub
	}
	pe := int(le.Uint32(stub[0x3c:]))
	if pe < 0 || pe+24+112 > len(stub) || string(stub[pe:pe+4]) != "PE\x00\x00" {
		return nil, ErrStub
	}
	count, optional := int(le.Uint16(stub[pe+6:])), pe+24
	table := optional + int(le.Uint16(stub[pe+20:]))
	sectionAlign, fileAlign := le.Uint32(stub[optional+32:]), le.Uint32(stub[optional+36:])
	headers := int(le.Uint32(stub[optional+60:]))
	if le.Uint16(stub[optional:]) != 0x20b || sectionAlign == 0 || fileAlign == 0 || table+count*sectionHeader > len(stub) {
		return nil, ErrStub
	}
	if table+(count+len(sections))*sectionHeader > headers {
		return nil, fmt.Errorf("%w: no room for %d more headers", ErrStub, len(sections))
	}
	var end uint32 // of what is mapped
	for i := range count {
		h := stub[table+i*sectionHeader:]
		end = max(end, le.Uint32(h[12:])+le.Uint32(h[8:]))
	}
	out := pad(append([]byte(nil), stub...), fileAlign)
	for i, s := range sections {
		if len(s.Name) > 8 || len(s.Data) == 0 {
			return nil, fmt.Errorf("section %q: a name of at most 8 bytes and some data are needed", s.Name)
		}
		at := align(end, sectionAlign)
		h := out[table+(count+i)*sectionHeader:][:sectionHeader]
		clear(h)
		copy(h, s.Name)
		le.PutUint32(h[8:], uint32(len(s.Data)))
		le.PutUint32(h[12:], at)
		le.PutUint32(h[16:], align(uint32(len(s.Data)), fileAlign))
		le.PutUint32(h[20:], uint32(len(out)))
		le.PutUint32(h[36:], dataSection)
		out = pad(append(out, s.Data...), fileAlign)
		end = at + uint32(len(s.Data))
	}
	le.PutUint16(out[pe+6:], uint16(count+len(sections)))
	le.PutUint32(out[optional+56:], align(end, sectionAlign))
	le.PutUint32(out[optional+64:], 0) // the stub's checksum is not ours; firmware ignores it for applications
	return out, nil
}

func align(n, to uint32) uint32 { return (n + to - 1) / to * to }

func pad(b []byte, to uint32) []byte {
	return append(b, make([]byte, int(align(uint32(len(b)), to))-len(b))...)
}
