package ledger

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A backup is JSON lines: one backupStart, backupLines, one with End.
type backupLine struct {
	Start *backupStart `json:"start,omitempty"`
	Key   string       `json:"k,omitempty"`
	Value []byte       `json:"v,omitempty"`
	Audit *AuditRecord `json:"a,omitempty"`
	End   *backupEnd   `json:"end,omitempty"`
}

type backupStart struct {
	Format   int       `json:"format"`
	At       time.Time `json:"at"`
	Commit   uint64    `json:"commit"`
	Salvaged bool      `json:"salvaged,omitempty"`
}

type backupEnd struct {
	Keys   int      `json:"keys"`
	Audits int      `json:"audits"`
	Lost   []string `json:"lost,omitempty"`
	Sum    Hash     `json:"sum"` // SHA-256 of all lines before
}

// backupWriter writes lines and counts them.
type backupWriter struct {
	w   *bufio.Writer
	h   hash.Hash
	end backupEnd
}

func newBackupWriter(w io.Writer) *backupWriter {
	return &backupWriter{w: bufio.NewWriter(w), h: sha256.New()}
}

func (b *backupWriter) line(l backupLine) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false) // so that audit records stay as they were hashed
	if err := e.Encode(l); err != nil {
		return err
	}
	switch {
	case l.Key != "":
		b.end.Keys++
	case l.Audit != nil:
		b.end.Audits++
	}
	b.h.Write(text.Bytes())
	_, err := b.w.Write(text.Bytes())
	return err
}

func (b *backupWriter) finish() error {
	b.h.Sum(b.end.Sum[:0])
	if err := b.line(backupLine{End: &b.end}); err != nil {
		return err
	}
	return b.w.Flush()
}

// Backup writes everything, as of one commit, as JSON lines that Restore reads.
// Values are in it as they are: a backup is as secret as the ledger.
func (l *Ledger) Backup(w io.Writer) error {
	out := newBackupWriter(w)
	err := l.View(func(tx *Tx) error {
		h, err := readHead(tx.txn)
		if err != nil {
			return err
		}
		if err := out.line(backupLine{Start: &backupStart{Format: Format, At: time.Now().UTC(), Commit: h.commit}}); err != nil {
			return err
		}
		var failed error
		if err := tx.Scan("", "", func(key string, v []byte) bool {
			failed = out.line(backupLine{Key: key, Value: v})
			return failed == nil
		}); err != nil || failed != nil {
			return errors.Join(err, failed)
		}
		if err := tx.eachAudit(0, false, func(r *AuditRecord) bool {
			failed = out.line(backupLine{Audit: r})
			return failed == nil
		}, nil); err != nil || failed != nil {
			return errors.Join(err, failed)
		}
		return out.finish()
	})
	if err != nil {
		return fmt.Errorf("back up the ledger: %w", err)
	}
	return nil
}

// keptBackups is how many Run keeps.
const keptBackups = 3

// Backups are the files that Run wrote, newest first.
func Backups(dir string) []string {
	all, err := filepath.Glob(filepath.Join(dir, backupName, "*.jsonl"))
	if err != nil {
		return nil
	}
	slices.Sort(all)
	slices.Reverse(all)
	return all
}

// saveBackup writes a backup beside the database and drops the oldest ones.
func (l *Ledger) saveBackup() error {
	if err := l.space(); err != nil {
		return err
	}
	dir := filepath.Join(l.dir, backupName)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	name := filepath.Join(dir, fmt.Sprintf("%020d.jsonl", l.Commits()))
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(l.Backup(f), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(name+".new"))
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	for _, old := range Backups(l.dir)[min(keptBackups, len(Backups(l.dir))):] {
		if err := os.Remove(old); err != nil {
			return err
		}
	}
	return syncDir(dir)
}

// Restore makes the ledger in dir anew from a backup or from what Salvage
// wrote, and says so in the audit log. It takes the place of a damaged ledger,
// whose files stay in quarantine, or of none; a ledger that opens is ErrInvalid
// and is left alone. The backup is read to its end before anything changes.
func Restore(ctx context.Context, dir string, r io.Reader) error {
	o := Options{}.withDefaults()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("restore ledger: %w", err)
	}
	lock, err := claim(filepath.Join(dir, lockName))
	if err != nil {
		return fmt.Errorf("restore ledger: %w", err)
	}
	err = o.restore(ctx, dir, r)
	if err = errors.Join(err, lock.release()); err != nil {
		return fmt.Errorf("restore ledger %s: %w", dir, err)
	}
	return nil
}

func (o Options) restore(ctx context.Context, dir string, r io.Reader) error {
	if err := earlierDamage(dir); err == nil {
		if n, err := readFormat(dir); err != nil || n != 0 {
			return errors.Join(fmt.Errorf("there is a ledger: %w", ErrInvalid), err)
		}
	} else if !errors.Is(err, ErrDamaged) {
		return err
	}
	building := filepath.Join(dir, "restoring")
	if err := os.RemoveAll(building); err != nil {
		return err
	}
	l, err := o.Open(building)
	if err != nil {
		return err
	}
	if err := errors.Join(l.refill(ctx, r), l.Close()); err != nil {
		return errors.Join(err, os.RemoveAll(building))
	}
	for _, name := range []string{dbName, headName, formatFile} {
		if err := os.Rename(filepath.Join(building, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	// Only now may Open look at what is here.
	if err := os.Remove(filepath.Join(dir, damageFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return errors.Join(os.RemoveAll(building), syncDir(dir))
}

// refillBytes is how much of a backup goes into one commit.
const refillBytes = 256 << 10

// refill reads a backup into an empty ledger.
func (l *Ledger) refill(ctx context.Context, r io.Reader) error {
	in := bufio.NewReaderSize(r, 64<<10)
	sum := sha256.New()
	var start *backupStart
	var end *backupEnd
	var batch []backupLine
	size, keys, audits := 0, 0, 0
	for n := 1; end == nil; n++ {
		text, err := in.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("line %d: the backup is cut off: %w", n, err)
		}
		var line backupLine
		if err := json.Unmarshal(text, &line); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		switch {
		case (n == 1) != (line.Start != nil):
			return fmt.Errorf("line %d: it is no backup of a ledger: %w", n, ErrInvalid)
		case line.Start != nil:
			start = line.Start
			if start.Format > Format {
				return ErrNewer
			}
		case line.End != nil:
			end = line.End
			if Hash(sum.Sum(nil)) != end.Sum || keys != end.Keys || audits != end.Audits {
				return fmt.Errorf("the backup does not match its checksum: %w", ErrDamaged)
			}
		case line.Audit != nil:
			audits++
		default:
			keys++
		}
		sum.Write(text)
		if line.Start == nil && line.End == nil {
			batch = append(batch, line)
			size += len(text)
		}
		if size >= refillBytes || end != nil {
			if err := l.put(ctx, batch); err != nil {
				return err
			}
			batch, size = batch[:0], 0
		}
	}
	after, err := json.Marshal(struct {
		*backupStart
		Keys   int      `json:"keys"`
		Audits int      `json:"audits"`
		Lost   []string `json:"lost,omitempty"`
	}{start, end.Keys, end.Audits, end.Lost})
	if err != nil {
		return err
	}
	return l.Update(ctx, func(tx *Tx) error {
		return tx.Audit(AuditRecord{User: "system", Action: "ledger.restore", ResourceType: "ledger", After: after, Outcome: "success"})
	})
}

func (l *Ledger) put(ctx context.Context, batch []backupLine) error {
	return l.Update(ctx, func(tx *Tx) error {
		for _, line := range batch {
			if line.Audit == nil {
				if err := tx.Put(line.Key, line.Value); err != nil {
					return err
				}
				continue
			}
			text, err := line.Audit.line()
			if err != nil {
				return err
			}
			name := auditKey(line.Audit.Seq)
			data, _ := l.codec.seal(string(name), text)
			if err := tooBig(tx.txn.Set(name, data)); err != nil {
				return err
			}
			tx.chain = append(tx.chain, *line.Audit)
		}
		return nil
	})
}
