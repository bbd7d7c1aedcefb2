package ledger

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrNotFound is that a key has no value.
	ErrNotFound = errors.New("no such key")
	// ErrDamaged is that what is stored is not what was written: see KeyError
	// and DamageError.
	ErrDamaged = errors.New("damaged")
	// ErrInvalid is a key, a value or a record that cannot be stored.
	ErrInvalid = errors.New("invalid")
	// ErrTooBig is a value over MaxValue or over 1 MB when compressed, or a
	// transaction over about 2 MB or 20,000 keys.
	ErrTooBig = errors.New("too big")
	// ErrFull is that the free space of the file system is below the reserve.
	// Reading goes on; writing does again as soon as there is space.
	ErrFull = errors.New("disk full")
	// ErrFailed is that an earlier commit failed in a way that leaves unknown
	// whether it is on the disk; the ledger must be opened again.
	ErrFailed = errors.New("ledger failed; open it again")
	// ErrNewer is a ledger that a newer version of the program wrote.
	ErrNewer = errors.New("format is newer than this program")
	// ErrLocked is a ledger that another process has open.
	ErrLocked = errors.New("in use by another process")
	// ErrAudit is an audit log that is not what was written: see AuditError.
	ErrAudit = errors.New("audit log does not verify")
)

// KeyError names a key whose stored value cannot be trusted. It is ErrDamaged.
type KeyError struct {
	Key string
	Why string
}

func (e *KeyError) Error() string { return fmt.Sprintf("value of %q: %s", e.Key, e.Why) }

// Is makes a KeyError an ErrDamaged.
func (e *KeyError) Is(target error) bool { return target == ErrDamaged }

// DamageError is what Open returns for a ledger that it cannot vouch for. The
// files are in Quarantine, unchanged by later starts. It is ErrDamaged.
type DamageError struct {
	Dir        string   // the ledger
	Why        string   // what was found
	Quarantine string   // where the files are
	Backups    []string // backups beside it, newest first
}

func (e *DamageError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "ledger %s is damaged: %s. Its files are in %s and nothing was started in its place. ", e.Dir, e.Why, e.Quarantine)
	if len(e.Backups) > 0 {
		fmt.Fprintf(&b, "Restore the backup %s, or ", e.Backups[0])
	} else {
		b.WriteString("Restore a backup, or ")
	}
	b.WriteString("salvage what can be read and restore that (ledger.Salvage, ledger.Restore)")
	return b.String()
}

// Is makes a DamageError an ErrDamaged.
func (e *DamageError) Is(target error) bool { return target == ErrDamaged }

// AuditError names the first record of the audit log that is wrong. It is
// ErrAudit.
type AuditError struct {
	Seq uint64
	Why string
}

func (e *AuditError) Error() string { return fmt.Sprintf("audit record %d: %s", e.Seq, e.Why) }

// Is makes an AuditError an ErrAudit.
func (e *AuditError) Is(target error) bool { return target == ErrAudit }
