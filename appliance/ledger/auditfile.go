package ledger

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// endLine is the last line of an exported audit log: without it, the file was
// cut off.
type endLine struct {
	End *AuditHead `json:"end,omitempty"`
}

// maxLine bounds a line of an exported file.
const maxLine = MaxValue * 2

// ExportAudit writes the records beyond number after (0 for all) as JSON lines,
// one record each, and a last line {"end":{"seq":…,"hash":…}}.
func (l *Ledger) ExportAudit(w io.Writer, after uint64) error {
	out := bufio.NewWriter(w)
	end := AuditHead{}
	var failed error
	err := l.eachAudit(after, false, func(r *AuditRecord) bool {
		var line []byte
		if line, failed = r.line(); failed == nil {
			end = AuditHead{r.Seq, r.Hash}
			_, failed = out.Write(append(line, '\n'))
		}
		return failed == nil
	}, nil)
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("export the audit log: %w", err)
	}
	line, err := json.Marshal(endLine{&end})
	if err != nil {
		return fmt.Errorf("export the audit log: %w", err)
	}
	if _, err := out.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("export the audit log: %w", err)
	}
	return out.Flush()
}

// VerifyAuditFile verifies an exported audit log as VerifyAudit does the log
// itself. A file that does not begin at record 1 needs the anchor of the record
// before its first. It returns the number of records that are right.
func VerifyAuditFile(r io.Reader, anchors ...AuditHead) (n uint64, err error) {
	c := chain{anchors: anchors}
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	var end *AuditHead
	for first := true; s.Scan(); {
		if end != nil {
			return c.n, &AuditError{c.last.Seq + 1, "follows the end of the file"}
		}
		var e endLine
		if err := json.Unmarshal(s.Bytes(), &e); err == nil && e.End != nil {
			end = e.End
			continue
		}
		r := new(AuditRecord)
		if err := json.Unmarshal(s.Bytes(), r); err != nil {
			return c.n, &AuditError{c.last.Seq + 1, err.Error()}
		}
		if first && r.Seq > 1 {
			for _, a := range anchors {
				if a.Seq == r.Seq-1 {
					c.last = a
				}
			}
		}
		first = false
		if !c.next(r) {
			break
		}
	}
	if err := s.Err(); err != nil {
		return c.n, fmt.Errorf("read the audit log: %w", err)
	}
	switch {
	case end == nil:
		c.fault(&AuditError{c.last.Seq + 1, "missing, and so is the end of the file: it was cut off"})
	case *end != c.last:
		c.fault(&AuditError{end.Seq, "is the end that the file tells, and not the last record"})
	}
	return c.n, c.end()
}
