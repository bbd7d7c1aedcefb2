package cli

import (
	"errors"
	"fmt"
	"os"

	"patronus/appliance"
	"patronus/appliance/ledger"
	"patronus/dashboard"
)

type openapiCmd struct{}

// Run implements kong's command.
func (c *openapiCmd) Run(env *Env) error {
	text, err := dashboard.Document(appliance.Version)
	if err != nil {
		return err
	}
	_, err = env.Stdout.Write(append(text, '\n'))
	return err
}

type auditCmd struct {
	Verify auditVerifyCmd `cmd:"" help:"Check that no record of an audit log was changed, removed, added or moved."`
	Export auditExportCmd `cmd:"" help:"Write the audit log of this appliance's dashboard as JSON lines."`
}

type auditVerifyCmd struct {
	File    string `arg:"" optional:"" help:"An exported log, - for standard input; default: this appliance's own." placeholder:"FILE"`
	DataDir string `help:"Where the appliance keeps its files." default:"/var/lib/patronus" env:"PATRONUS_DATA_DIR" type:"path"`
	Head    string `help:"What the newest record must be at least: its number and hash as verify prints them, NUMBER:HASH. Kept elsewhere, it shows that the end was cut off." placeholder:"NUMBER:HASH"`
}

// Run implements kong's command.
func (c *auditVerifyCmd) Run(env *Env) error {
	var anchors []ledger.AuditHead
	if c.Head != "" {
		var h ledger.AuditHead
		var hash string
		if _, err := fmt.Sscanf(c.Head, "%d:%s", &h.Seq, &hash); err != nil {
			return fmt.Errorf("%w: head %q is not NUMBER:HASH", ErrUsage, c.Head)
		}
		if err := h.Hash.UnmarshalText([]byte(hash)); err != nil {
			return fmt.Errorf("%w: head: %w", ErrUsage, err)
		}
		anchors = append(anchors, h)
	}
	if c.File != "" {
		in := env.Stdin
		if c.File != "-" {
			f, err := os.Open(c.File)
			if err != nil {
				return fmt.Errorf("audit: %w", err)
			}
			defer f.Close()
			in = f
		}
		n, err := ledger.VerifyAuditFile(in, anchors...)
		if err != nil {
			return fmt.Errorf("audit: %d records are right, then: %w", n, err)
		}
		_, err = fmt.Fprintf(env.Stdout, "%d records, all as they were written\n", n)
		return err
	}
	return withLedger(c.DataDir, func(l *ledger.Ledger) error {
		n, err := l.VerifyAudit(anchors...)
		if err != nil {
			return fmt.Errorf("audit: %d records are right, then: %w", n, err)
		}
		head := l.Head()
		_, err = fmt.Fprintf(env.Stdout, "%d records, all as they were written; head %d:%s\n", n, head.Seq, head.Hash)
		return err
	})
}

type auditExportCmd struct {
	After   uint64 `help:"Leave out the records up to this number."`
	DataDir string `help:"Where the appliance keeps its files." default:"/var/lib/patronus" env:"PATRONUS_DATA_DIR" type:"path"`
}

// Run implements kong's command.
func (c *auditExportCmd) Run(env *Env) error {
	return withLedger(c.DataDir, func(l *ledger.Ledger) error { return l.ExportAudit(env.Stdout, c.After) })
}

// withLedger opens the ledger of a dashboard that is not running.
func withLedger(dataDir string, f func(*ledger.Ledger) error) error {
	dir := appliance.LedgerDir(dataDir)
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("this appliance has never been a dashboard: %w", err)
	}
	l, err := ledger.Open(dir)
	if errors.Is(err, ledger.ErrLocked) {
		return fmt.Errorf("%w: while the appliance runs, ask it: GET /api/v1/audit/verify", err)
	}
	if err != nil {
		return err
	}
	return errors.Join(f(l), l.Close())
}
