package simulate

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Pack turns JSON lines into a packed file and says how many flows it holds.
// Errors in the input wrap [ErrFormat].
func Pack(out io.Writer, in io.Reader) (flows uint64, err error) {
	w := NewWriter(out)
	r := bufio.NewReaderSize(in, 2*lineChunk)
	parties := map[string]uint32{} // by text, so that most are parsed once
	party := func(text []byte) (uint32, error) {
		if i, ok := parties[string(text)]; ok {
			return i, nil
		}
		p, err := parseParty(text)
		if err != nil {
			return Nowhere, err
		}
		i, err := w.Party(p)
		if err == nil && len(parties) < maxParties {
			parties[string(text)] = i
		}
		return i, err
	}
	var l line
	var rec Record
	for number := 1; ; number++ {
		text, err := r.ReadSlice('\n')
		over := errors.Is(err, io.EOF)
		if err != nil && !over {
			return flows, fmt.Errorf("%w: line %d: %w", ErrFormat, number, err)
		}
		if text = bytes.TrimSpace(text); len(text) > 0 {
			skip, err := parseLine(text, &l, &rec)
			if err == nil && !skip {
				err = pack(w, &l, &rec, party)
				flows++
			}
			if err != nil {
				return flows, fmt.Errorf("%w: line %d: %w", ErrFormat, number, err)
			}
		}
		if over {
			return flows, w.Close()
		}
	}
}

func pack(w *Writer, l *line, r *Record, party func([]byte) (uint32, error)) (err error) {
	if r.From, err = party(l.From); err != nil {
		return fmt.Errorf("from: %w", err)
	}
	if r.To, err = party(l.To); err != nil {
		return fmt.Errorf("to: %w", err)
	}
	if r.Policy, err = w.Name(l.Policy); err != nil {
		return err
	}
	return w.Write(r)
}
