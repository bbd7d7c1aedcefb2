package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// AuditRecord is who did what to what, and from where. Seq, Prev and Hash are
// the ledger's: what a caller sets there is ignored.
type AuditRecord struct {
	Seq          uint64          `json:"seq"` // from 1, without holes
	At           time.Time       `json:"at"`  // UTC; zero: the time of the call
	User         string          `json:"user"`
	Action       string          `json:"action"`
	ResourceType string          `json:"resource_type,omitempty"`
	ResourceID   string          `json:"resource_id,omitempty"`
	Before       json.RawMessage `json:"before,omitempty"`
	After        json.RawMessage `json:"after,omitempty"`
	IP           string          `json:"ip,omitempty"`
	UserAgent    string          `json:"user_agent,omitempty"`
	Outcome      string          `json:"outcome,omitempty"`
	Prev         Hash            `json:"prev"`          // hash of the record before, zero for the first
	Hash         Hash            `json:"hash,omitzero"` // over all of the above: see FORMAT.md
}

// Audit appends a record to the chain, in this transaction: it is there if and
// only if the transaction's writes are. ErrInvalid for a record without user or
// action, or with a Before or After that is not JSON.
func (tx *Tx) Audit(r AuditRecord) error {
	if tx.writes == nil {
		return fmt.Errorf("audit in a View: %w", ErrInvalid)
	}
	if r.User == "" || r.Action == "" {
		return fmt.Errorf("audit record without user or action: %w", ErrInvalid)
	}
	if r.At.IsZero() {
		r.At = time.Now()
	}
	r.At = r.At.Round(0).UTC() // without the monotonic clock
	// A request may hold any bytes; JSON holds text. What is hashed must be
	// what is read back.
	for _, s := range []*string{&r.User, &r.Action, &r.ResourceType, &r.ResourceID, &r.IP, &r.UserAgent, &r.Outcome} {
		*s = strings.ToValidUTF8(strings.Clone(*s), "\uFFFD")
	}
	for _, m := range []*json.RawMessage{&r.Before, &r.After} {
		if *m == nil {
			continue
		}
		var b bytes.Buffer
		if err := json.Compact(&b, *m); err != nil {
			return fmt.Errorf("audit record of %s: %w: %w", r.Action, ErrInvalid, err)
		}
		*m = b.Bytes()
	}
	tx.audits = append(tx.audits, r)
	return nil
}

// line is one record as JSON without a line end; <, > and & stand for themselves.
func (r *AuditRecord) line() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		return nil, fmt.Errorf("encode audit record %d: %w", r.Seq, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// encode sets the hash and gives the line.
func (r *AuditRecord) encode() ([]byte, error) {
	h, err := r.digest()
	if err != nil {
		return nil, err
	}
	r.Hash = h
	return r.line()
}

// digest is SHA-256 over a name of the format, the previous hash and the record
// as JSON without its own hash.
func (r AuditRecord) digest() (Hash, error) {
	r.Hash = Hash{}
	line, err := r.line()
	if err != nil {
		return Hash{}, err
	}
	h := sha256.New()
	h.Write([]byte("patronus audit 1\n"))
	h.Write(r.Prev[:])
	h.Write(line)
	var out Hash
	h.Sum(out[:0])
	return out, nil
}

func auditKey(seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(auditPrefix), seq)
}

// AuditFilter selects audit records; empty fields select all.
type AuditFilter struct {
	User, Action, ResourceType, ResourceID string
	From, To                               time.Time // From <= At < To
	Newest                                 bool      // newest first
}

func (f *AuditFilter) fits(r *AuditRecord) bool {
	return (f.User == "" || f.User == r.User) &&
		(f.Action == "" || f.Action == r.Action) &&
		(f.ResourceType == "" || f.ResourceType == r.ResourceType) &&
		(f.ResourceID == "" || f.ResourceID == r.ResourceID) &&
		(f.From.IsZero() || !r.At.Before(f.From)) &&
		(f.To.IsZero() || r.At.Before(f.To))
}

// Audits are up to limit records that the filter selects, in their order,
// beyond the record numbered after: the Seq of the last one is the cursor of
// the next page, 0 begins. Fewer than limit are the last. The search reads all
// records on the way. An AuditError when one of them is missing or damaged.
func (l *Ledger) Audits(f AuditFilter, after uint64, limit int) ([]AuditRecord, error) {
	var out []AuditRecord
	err := l.eachAudit(after, f.Newest, func(r *AuditRecord) bool {
		if len(out) < limit && f.fits(r) {
			out = append(out, *r)
		}
		return len(out) < limit
	}, nil)
	return out, err
}

// eachAudit calls f with the records beyond after, and checks that none is
// missing. What is wrong goes to fault, which says whether to go on; without
// one it ends the walk and is returned.
func (l *Ledger) eachAudit(after uint64, down bool, f func(*AuditRecord) bool, fault func(*AuditError) bool) error {
	return l.View(func(tx *Tx) error { return tx.eachAudit(after, down, f, fault) })
}

func (tx *Tx) eachAudit(after uint64, down bool, f func(*AuditRecord) bool, fault func(*AuditError) bool) error {
	end, err := readHead(tx.txn)
	if err != nil {
		return err
	}
	first, last, step := after+1, end.audit.Seq, uint64(1)
	if down {
		first, last, step = end.audit.Seq, 1, ^uint64(0)
		if after > 0 {
			first = min(first, after-1)
		}
		if first == 0 {
			return nil
		}
	} else if first > last {
		return nil
	}
	it := tx.txn.NewIterator(badger.IteratorOptions{Prefix: []byte(auditPrefix), Reverse: down})
	defer it.Close()
	it.Seek(auditKey(first))
	for seq := first; ; seq += step {
		r, bad := tx.l.auditAt(it, seq)
		switch {
		case bad != nil && (fault == nil || !fault(bad)):
			return bad
		case bad == nil && !f(r):
			return nil
		}
		if seq == last {
			return nil
		}
		if it.Valid() && bytes.Equal(it.Item().Key(), auditKey(seq)) {
			it.Next()
		}
	}
}

// auditAt is the record that the iterator should stand on.
func (l *Ledger) auditAt(it *badger.Iterator, seq uint64) (*AuditRecord, *AuditError) {
	name := auditKey(seq)
	if !it.Valid() || !bytes.Equal(it.Item().Key(), name) {
		return nil, &AuditError{seq, "missing"}
	}
	var line []byte
	err := it.Item().Value(func(data []byte) (err error) {
		line, _, err = l.codec.open(string(name), data)
		return err
	})
	if err != nil {
		return nil, &AuditError{seq, err.Error()}
	}
	r := new(AuditRecord)
	if err := json.Unmarshal(line, r); err != nil {
		return nil, &AuditError{seq, err.Error()}
	}
	if r.Seq != seq {
		return nil, &AuditError{seq, fmt.Sprintf("holds number %d", r.Seq)}
	}
	return r, nil
}

func readHead(txn *badger.Txn) (head, error) {
	item, err := txn.Get([]byte(headKey))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return head{}, nil
	}
	var h head
	if err == nil {
		err = item.Value(func(data []byte) (err error) {
			h, err = decodeHead(data)
			return err
		})
	}
	if err != nil {
		return h, &KeyError{"(head)", err.Error()}
	}
	return h, nil
}

// maxFaults bounds how many faults a verification tells.
const maxFaults = 100

// VerifyAudit reads the whole audit log: that every record's hash is right and
// follows the one before, that none is missing, and that the ends known to the
// database, the head file, this process and the caller (anchors, kept
// elsewhere) are in it. It returns the number of records, and what is wrong as
// AuditErrors, joined.
func (l *Ledger) VerifyAudit(anchors ...AuditHead) (n uint64, err error) {
	// Ends that are read before the transaction begins are within what it sees.
	ends := append(slices.Clone(anchors), l.Head())
	onFile, ok, _, err := l.heads.read()
	if err != nil {
		return 0, err
	}
	if ok {
		ends = append(ends, onFile.audit)
	}
	c := chain{anchors: ends}
	err = l.eachAudit(0, false, c.next, c.fault)
	if err == nil {
		err = c.end()
	}
	return c.n, err
}

// chain verifies records one after the other.
type chain struct {
	anchors []AuditHead
	last    AuditHead
	n       uint64 // records that are right
	faults  []error
}

func (c *chain) fault(e *AuditError) bool {
	if len(c.faults) < maxFaults {
		c.faults = append(c.faults, e)
	}
	return len(c.faults) < maxFaults
}

// next judges one record; after a fault it goes on from there.
func (c *chain) next(r *AuditRecord) bool {
	before := len(c.faults)
	switch h, err := r.digest(); {
	case err != nil:
		c.fault(&AuditError{r.Seq, err.Error()})
	case h != r.Hash:
		c.fault(&AuditError{r.Seq, "changed: its hash does not match"})
	case r.Seq != c.last.Seq+1:
		c.fault(&AuditError{r.Seq, fmt.Sprintf("follows record %d", c.last.Seq)})
	case r.Prev != c.last.Hash:
		c.fault(&AuditError{r.Seq, "does not follow from the record before"})
	}
	c.last = AuditHead{r.Seq, r.Hash}
	for _, a := range c.anchors {
		if a.Seq == r.Seq && a.Hash != r.Hash {
			c.fault(&AuditError{r.Seq, "is not the record that was known by this number"})
		}
	}
	if len(c.faults) == before {
		c.n++
	}
	return len(c.faults) < maxFaults
}

// end judges that nothing was cut off.
func (c *chain) end() error {
	newest := uint64(0)
	for _, a := range c.anchors {
		newest = max(newest, a.Seq)
	}
	if newest > c.last.Seq {
		c.fault(&AuditError{c.last.Seq + 1, fmt.Sprintf("missing, and so are all up to %d", newest)})
	}
	return errors.Join(c.faults...)
}
