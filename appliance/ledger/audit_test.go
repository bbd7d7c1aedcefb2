package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 123456789, time.UTC)

func audit(t testing.TB, l *Ledger, records ...AuditRecord) {
	t.Helper()
	for _, r := range records {
		if err := l.Update(t.Context(), func(tx *Tx) error { return tx.Audit(r) }); err != nil {
			t.Fatal(err)
		}
	}
}

// audited is a ledger with n records by three users, a minute apart.
func audited(t testing.TB, dir string, n int) *Ledger {
	l := open(t, dir)
	if err := l.Update(t.Context(), func(tx *Tx) error {
		for i := range n {
			if err := tx.Audit(AuditRecord{
				At: noon.Add(time.Duration(i) * time.Minute), User: []string{"alice", "bob", "carol"}[i%3],
				Action: []string{"policy.update", "user.create"}[i%2], ResourceType: "policy", ResourceID: strconv.Itoa(i % 5),
				Before: json.RawMessage(`{"a": "<&>", "n": 1.0e2}`), IP: "192.0.2.1", Outcome: "success",
			}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return l
}

func seqs(rs []AuditRecord) (out []uint64) {
	for _, r := range rs {
		out = append(out, r.Seq)
	}
	return out
}

func TestAudits(t *testing.T) {
	l := audited(t, t.TempDir(), 12)
	for name, c := range map[string]struct {
		f     AuditFilter
		after uint64
		limit int
		want  []uint64
	}{
		"all":       {limit: 100, want: []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
		"page":      {after: 3, limit: 2, want: []uint64{4, 5}},
		"past end":  {after: 12, limit: 2},
		"user":      {f: AuditFilter{User: "bob"}, limit: 3, want: []uint64{2, 5, 8}},
		"user next": {f: AuditFilter{User: "bob"}, after: 8, limit: 3, want: []uint64{11}},
		"action":    {f: AuditFilter{Action: "user.create", User: "alice"}, limit: 9, want: []uint64{4, 10}},
		"resource":  {f: AuditFilter{ResourceType: "policy", ResourceID: "4"}, limit: 9, want: []uint64{5, 10}},
		"time":      {f: AuditFilter{From: noon.Add(2 * time.Minute), To: noon.Add(4 * time.Minute)}, limit: 9, want: []uint64{3, 4}},
		"newest":    {f: AuditFilter{Newest: true}, limit: 3, want: []uint64{12, 11, 10}},
		"older":     {f: AuditFilter{Newest: true}, after: 3, limit: 3, want: []uint64{2, 1}},
		"oldest":    {f: AuditFilter{Newest: true}, after: 1, limit: 3},
		"none":      {limit: 0},
	} {
		got, err := l.Audits(c.f, c.after, c.limit)
		if err != nil || !slices.Equal(seqs(got), c.want) {
			t.Errorf("%s: %v, %v; want %v", name, seqs(got), err, c.want)
		}
	}
	all, err := l.Audits(AuditFilter{}, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	if r := all[0]; !r.At.Equal(noon) || r.User != "alice" || string(r.Before) != `{"a":"<&>","n":1.0e2}` || r.Hash == (Hash{}) {
		t.Errorf("record %+v", r)
	}
}

// Whatever a request holds, what is read back is what was hashed.
func TestAuditText(t *testing.T) {
	l := open(t, t.TempDir())
	audit(t, l,
		AuditRecord{User: "a\xff\xfe", Action: "x", UserAgent: "<script>\u2028\x00"},
		AuditRecord{User: "b", Action: "x", Before: json.RawMessage("null"), After: json.RawMessage("[ 1,\n\"\\u003c\" ]")},
		AuditRecord{User: "c", Action: "x", At: time.Now()},
		AuditRecord{User: "d", Action: "x", At: noon.In(time.FixedZone("far", 3600))})
	if n, err := l.VerifyAudit(); n != 4 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	var b bytes.Buffer
	if err := l.ExportAudit(&b, 0); err != nil {
		t.Fatal(err)
	}
	if n, err := VerifyAuditFile(&b, l.Head()); n != 4 || err != nil {
		t.Errorf("file: %d, %v", n, err)
	}
}

// forge changes the database behind the ledger's back, as one with root and
// knowledge of the format can.
func forge(t *testing.T, l *Ledger, f func(txn *badger.Txn) error) {
	t.Helper()
	if err := l.db.Update(f); err != nil {
		t.Fatal(err)
	}
}

// resealed is a record with a changed user, its own hash made to fit or not.
func resealed(t *testing.T, l *Ledger, seq uint64, rehash bool) func(txn *badger.Txn) error {
	return func(txn *badger.Txn) error {
		rs, err := l.Audits(AuditFilter{}, seq-1, 1)
		if err != nil {
			t.Fatal(err)
		}
		r := rs[0]
		r.User = "mallory"
		line, err := r.line()
		if rehash {
			line, err = r.encode()
		}
		if err != nil {
			t.Fatal(err)
		}
		data, _ := l.codec.seal(string(auditKey(seq)), line)
		return txn.Set(auditKey(seq), data)
	}
}

func TestVerifyAudit(t *testing.T) {
	for name, c := range map[string]struct {
		forge func(t *testing.T, l *Ledger) func(txn *badger.Txn) error
		seq   uint64 // that the first error names
	}{
		"changed":                 {func(t *testing.T, l *Ledger) func(*badger.Txn) error { return resealed(t, l, 5, false) }, 5},
		"changed and hashed":      {func(t *testing.T, l *Ledger) func(*badger.Txn) error { return resealed(t, l, 5, true) }, 6},
		"last changed and hashed": {func(t *testing.T, l *Ledger) func(*badger.Txn) error { return resealed(t, l, 9, true) }, 9},
		"removed": {func(*testing.T, *Ledger) func(*badger.Txn) error {
			return func(txn *badger.Txn) error { return txn.Delete(auditKey(4)) }
		}, 4},
		"swapped": {func(t *testing.T, l *Ledger) func(*badger.Txn) error {
			return func(txn *badger.Txn) error { return swap(txn, l, 3, 4) }
		}, 3},
		"last removed": {func(*testing.T, *Ledger) func(*badger.Txn) error {
			return func(txn *badger.Txn) error { return txn.Delete(auditKey(9)) }
		}, 9},
		"cut, and the head with it": {func(t *testing.T, l *Ledger) func(*badger.Txn) error {
			return func(txn *badger.Txn) error {
				h := l.head
				rs, err := l.Audits(AuditFilter{}, 6, 1)
				if err != nil {
					return err
				}
				h.audit = AuditHead{rs[0].Seq, rs[0].Hash}
				return errors.Join(txn.Set([]byte(headKey), h.encode()), txn.Delete(auditKey(8)), txn.Delete(auditKey(9)))
			}
		}, 8},
		"flipped": {func(t *testing.T, l *Ledger) func(*badger.Txn) error {
			return func(txn *badger.Txn) error { return txn.Set(auditKey(2), []byte("nonsense")) }
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			l := audited(t, t.TempDir(), 9)
			if n, err := l.VerifyAudit(l.Head()); n != 9 || err != nil {
				t.Fatalf("before: %d, %v", n, err)
			}
			forge(t, l, c.forge(t, l))
			n, err := l.VerifyAudit()
			var at *AuditError
			if !errors.As(err, &at) || !errors.Is(err, ErrAudit) || at.Seq != c.seq || n >= 9 {
				t.Errorf("%d, %v", n, err)
			}
		})
	}
}

func swap(txn *badger.Txn, l *Ledger, a, b uint64) error {
	rs, err := l.Audits(AuditFilter{}, min(a, b)-1, 2)
	if err != nil {
		return err
	}
	for i, seq := range []uint64{b, a} {
		line, err := rs[i].line()
		if err != nil {
			return err
		}
		data, _ := l.codec.seal(string(auditKey(seq)), line)
		if err := txn.Set(auditKey(seq), data); err != nil {
			return err
		}
	}
	return nil
}

// One who rewrites all there is here is found by a head kept elsewhere.
func TestAnchor(t *testing.T) {
	l := audited(t, t.TempDir(), 4)
	known := l.Head()
	forged := audited(t, t.TempDir(), 3)
	audit(t, forged, AuditRecord{User: "mallory", Action: "x"}, AuditRecord{User: "mallory", Action: "x"})
	if _, err := forged.VerifyAudit(); err != nil {
		t.Fatal(err)
	}
	var at *AuditError
	if _, err := forged.VerifyAudit(known); !errors.As(err, &at) || at.Seq != 4 {
		t.Errorf("forged log against the anchor: %v", err)
	}
	if _, err := l.VerifyAudit(forged.Head()); !errors.As(err, &at) || at.Seq != 5 {
		t.Errorf("short log against the anchor: %v", err)
	}
}

func TestAuditFile(t *testing.T) {
	l := audited(t, t.TempDir(), 9)
	var b bytes.Buffer
	if err := l.ExportAudit(&b, 0); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(b.String(), "\n"), "\n")
	lines[9] += "\n"
	head := l.Head()
	part := slices.Clone(lines[4:])
	before := AuditHead{}
	if rs, err := l.Audits(AuditFilter{}, 3, 1); err != nil {
		t.Fatal(err)
	} else {
		before = AuditHead{rs[0].Seq, rs[0].Hash}
	}
	for name, c := range map[string]struct {
		lines   []string
		anchors []AuditHead
		ok      bool
	}{
		"whole":            {lines, nil, true},
		"with its head":    {lines, []AuditHead{head}, true},
		"changed":          {edit(lines, 2, "alice", "mallory"), nil, false},
		"removed":          {slices.Concat(lines[:3], lines[4:]), nil, false},
		"swapped":          {slices.Concat(lines[:3], []string{lines[4], lines[3]}, lines[5:]), nil, false},
		"end cut":          {lines[:9], nil, false},
		"last record cut":  {slices.Concat(lines[:8], lines[9:]), nil, false},
		"last line torn":   {append(slices.Clone(lines[:8]), lines[8][:20]), nil, false},
		"beginning cut":    {part, nil, false},
		"a part":           {part, []AuditHead{before}, true},
		"longer elsewhere": {lines, []AuditHead{{10, head.Hash}}, false},
		"end forged":       {append(slices.Clone(lines[:8]), fmt.Sprintf(`{"end":{"seq":8,"hash":"%s"}}`, head.Hash)), nil, false},
		"after the end":    {append(slices.Clone(lines), lines[8]), nil, false},
		"empty":            {nil, nil, false},
	} {
		_, err := VerifyAuditFile(strings.NewReader(strings.Join(c.lines, "")), c.anchors...)
		if ok := err == nil; ok != c.ok || !ok && !errors.Is(err, ErrAudit) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var rest bytes.Buffer
	if err := l.ExportAudit(&rest, 4); err != nil {
		t.Fatal(err)
	}
	if want := strings.Join(lines[4:], ""); rest.String() != want {
		t.Errorf("export after 4:\n%s\nwant\n%s", rest.String(), want)
	}
}

func edit(lines []string, at int, from, to string) []string {
	lines = slices.Clone(lines)
	for i := at; i < len(lines); i++ {
		if strings.Contains(lines[i], from) {
			lines[i] = strings.Replace(lines[i], from, to, 1)
			break
		}
	}
	return lines
}

func FuzzAuditFile(f *testing.F) {
	l := audited(f, f.TempDir(), 3)
	var b bytes.Buffer
	if err := l.ExportAudit(&b, 0); err != nil {
		f.Fatal(err)
	}
	whole := b.String()
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(`{"end":{"seq":0,"hash":"00"}}`)
	head := l.Head()
	f.Fuzz(func(t *testing.T, text string) {
		// With the head known, only the same records verify.
		if n, err := VerifyAuditFile(strings.NewReader(text), head); err == nil && n != 3 {
			t.Errorf("%d records", n)
		}
	})
}

func BenchmarkAudits(b *testing.B) {
	l := open(b, b.TempDir())
	for range 20 {
		if err := l.Update(b.Context(), func(tx *Tx) error {
			for i := range 500 {
				if err := tx.Audit(AuditRecord{User: strconv.Itoa(i), Action: "x", IP: "192.0.2.1"}); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("search 10,000", func(b *testing.B) {
		for b.Loop() {
			if rs, err := l.Audits(AuditFilter{User: "7"}, 0, 100); err != nil || len(rs) != 20 {
				b.Fatal(len(rs), err)
			}
		}
	})
	b.Run("verify 10,000", func(b *testing.B) {
		for b.Loop() {
			if n, err := l.VerifyAudit(); err != nil || n != 10000 {
				b.Fatal(n, err)
			}
		}
	})
}
