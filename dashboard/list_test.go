package dashboard

import (
	"bytes"
	"io"
	"testing"

	"github.com/klauspost/compress/gzip"
)

func TestPackedIsWhole(t *testing.T) {
	plain := bytes.Repeat([]byte(`{"id":"hq"},`), 1000)
	zip, err := packed(plain)
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(zip))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("unpacked %d bytes, %v; packed were %d", len(got), err, len(plain))
	}
}
