package gpt

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func guid(t testing.TB, text string) GUID {
	t.Helper()
	g, err := ParseGUID(text)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func example(t testing.TB) *Table {
	return &Table{
		Disk: guid(t, "5f2c8c0e-0000-4000-8000-000000000001"), Sectors: 1 << 20,
		Partitions: []Partition{
			{Type: guid(t, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"), ID: GUID{1}, First: 2048, Last: 526335, Name: "patronus-esp"},
			{Type: guid(t, "0fc63daf-8483-4772-8e79-3d69d8477de4"), ID: GUID{2}, First: 526336, Last: 591871, Name: "patronus-data"},
		},
	}
}

func TestGUIDOrder(t *testing.T) {
	g := guid(t, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
	want := []byte{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}
	if !bytes.Equal(g[:], want) {
		t.Errorf("% x", g)
	}
}

func TestRoundTrip(t *testing.T) {
	want := example(t)
	got, err := Parse(want.Head())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestGrow(t *testing.T) {
	old := example(t)
	g, grown := old.Grow(4 << 20)
	if !grown || g.Partitions[1].Last != (4<<20)-2048-1 || g.Partitions[0] != old.Partitions[0] || g.Sectors != 4<<20 {
		t.Errorf("%v %+v", grown, g)
	}
	if got, err := Parse(g.Head()); err != nil || cmp.Diff(g, got) != "" {
		t.Errorf("%+v %v", got, err)
	}
	for _, sectors := range []uint64{1 << 20, 1 << 19, 0} {
		if _, grown := old.Grow(sectors); grown {
			t.Errorf("grown to %d sectors", sectors)
		}
	}
}

// A write of the new table that is cut anywhere leaves the old one, the new
// one, or one that the checksums refuse (then the copy at the end counts,
// which is written first).
func TestCutWhileGrowing(t *testing.T) {
	old := example(t)
	g, _ := old.Grow(4 << 20)
	was, is := old.Head(), g.Head()
	rapid.Check(t, func(t *rapid.T) {
		disk := bytes.Clone(was)
		for s := range HeadSectors { // sectors reach the disk in any order
			if rapid.Bool().Draw(t, "written") {
				copy(disk[s*SectorSize:(s+1)*SectorSize], is[s*SectorSize:])
			}
		}
		got, err := Parse(disk)
		if err != nil {
			if !errors.Is(err, ErrTable) {
				t.Fatal(err)
			}
			return
		}
		if cmp.Diff(got, old) != "" && cmp.Diff(got, g) != "" {
			t.Fatalf("a mixture: %+v", got)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(example(f).Head())
	f.Fuzz(func(_ *testing.T, head []byte) {
		if t, err := Parse(head); err == nil {
			t.Grow(1 << 40)
		}
	})
}
