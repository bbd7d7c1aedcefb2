package export

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"patronus/appliance/store"
)

// schemaVersion is the version of our tables.
const schemaVersion = 1

// ErrSchema is returned for tables that a newer program made.
var ErrSchema = errors.New("schema of the database is of a newer version")

// The tables. Each key makes a row that comes twice one row; at, the dimension
// of partitions and hypertables, must be part of it.
const (
	samplesTable = "samples"
	flowsTable   = "flows"
	eventsTable  = "events"
)

var tables = []string{samplesTable, flowsTable, eventsTable}

// createTables makes version 1; partitioned is the clause that ends a table.
func createTables(partitioned string) []string {
	samples := "CREATE TABLE samples (\n\tat timestamptz NOT NULL,\n\tsite text NOT NULL,\n\tpath text NOT NULL,\n\tclock_offset_ms integer NOT NULL"
	for m := range store.Metric(store.NumMetrics) {
		samples += ",\n\t" + m.Name() + " double precision"
	}
	samples += ",\n\tPRIMARY KEY (site, path, at)\n)" + partitioned
	return []string{
		samples,
		`CREATE TABLE flows (
	at timestamptz NOT NULL,
	site text NOT NULL,
	flow_key text NOT NULL,
	change text NOT NULL,
	"end" text,
	src inet,
	dst inet,
	src_port integer NOT NULL,
	dst_port integer NOT NULL,
	protocol text NOT NULL,
	status text NOT NULL,
	path text,
	class text,
	policy text,
	rule integer,
	reason text,
	moves bigint NOT NULL,
	forward_packets bigint NOT NULL,
	forward_bytes bigint NOT NULL,
	reverse_packets bigint NOT NULL,
	reverse_bytes bigint NOT NULL,
	started_at timestamptz,
	seen_at timestamptz,
	ended_at timestamptz,
	decision jsonb,
	PRIMARY KEY (site, flow_key, at, change)
)` + partitioned,
		`CREATE TABLE events (
	at timestamptz NOT NULL,
	id text NOT NULL,
	event_type text NOT NULL,
	severity text NOT NULL,
	site text,
	source_id text,
	data jsonb,
	PRIMARY KEY (id, at)
)` + partitioned,
		`CREATE INDEX events_at ON events (at)`,
		`CREATE INDEX flows_at ON flows (at)`,
		`CREATE INDEX samples_at ON samples USING brin (at)`,
	}
}

// migrate makes or upgrades the tables, in one transaction, one program at a
// time. It says whether TimescaleDB keeps them.
func (p *postgres) migrate(ctx context.Context, c *pgx.Conn) (hyper bool, err error) {
	tx, err := c.Begin(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = tx.Rollback(ctx) }() // nothing, once it is committed
	exec := func(sql string, args ...any) {
		if err == nil {
			if _, err = tx.Exec(ctx, sql, args...); err != nil {
				err = fmt.Errorf("%.60q: %w", sql, err)
			}
		}
	}
	// "patronus" as a number: whatever else locks, it is not us.
	exec("SELECT pg_advisory_xact_lock(8097877310219711859)")
	exec("CREATE SCHEMA IF NOT EXISTS " + p.schema)
	exec("SET LOCAL search_path TO " + p.schema + ", public")
	exec("CREATE TABLE IF NOT EXISTS schema_version (version integer NOT NULL, hypertables boolean NOT NULL, at timestamptz NOT NULL DEFAULT now())")
	if err != nil {
		return false, err
	}
	version := 0
	err = tx.QueryRow(ctx, "SELECT version, hypertables FROM schema_version ORDER BY version DESC LIMIT 1").Scan(&version, &hyper)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return false, err
	}
	err = nil
	if version > schemaVersion {
		return false, fmt.Errorf("version %d: %w", version, ErrSchema)
	}
	if version == 0 {
		if hyper, err = createExtension(ctx, tx); err != nil {
			return false, err
		}
		partitioned := " PARTITION BY RANGE (at)"
		if hyper {
			partitioned = ""
		}
		for _, sql := range createTables(partitioned) {
			exec(sql)
		}
		for _, t := range tables {
			if hyper {
				for _, sql := range hypertable(t, p.o) {
					exec(sql)
				}
			} else {
				exec("CREATE TABLE " + t + "_other PARTITION OF " + t + " DEFAULT")
			}
		}
		exec("INSERT INTO schema_version (version, hypertables) VALUES ($1, $2)", schemaVersion, hyper)
	}
	if err != nil {
		return false, err
	}
	return hyper, tx.Commit(ctx)
}

// createExtension reports whether TimescaleDB is there, and makes it so if the
// server has it and we may.
func createExtension(ctx context.Context, tx pgx.Tx) (bool, error) {
	var available, installed bool
	err := tx.QueryRow(ctx, `SELECT count(*) > 0, count(installed_version) > 0 FROM pg_available_extensions WHERE name = 'timescaledb'`).Scan(&available, &installed)
	if err != nil || !available || installed {
		return installed, err
	}
	// A savepoint: a refusal must not end the transaction.
	sub, err := tx.Begin(ctx)
	if err != nil {
		return false, err
	}
	if _, err := sub.Exec(ctx, "CREATE EXTENSION timescaledb"); err != nil {
		return false, sub.Rollback(ctx)
	}
	return true, sub.Commit(ctx)
}

// hypertable gives a table to TimescaleDB: chunks of one day, compressed when
// they are old, dropped when they are too old.
func hypertable(table string, o *Postgres) []string {
	segment := map[string]string{samplesTable: "site, path", flowsTable: "site", eventsTable: "event_type"}[table]
	after := o.CompressAfter
	if after <= 0 {
		after = 7 * 24 * time.Hour
	}
	out := []string{
		fmt.Sprintf("SELECT create_hypertable('%s', 'at', chunk_time_interval => INTERVAL '1 day')", table),
		fmt.Sprintf("ALTER TABLE %s SET (timescaledb.compress, timescaledb.compress_segmentby = '%s', timescaledb.compress_orderby = 'at DESC')", table, segment),
		fmt.Sprintf("SELECT add_compression_policy('%s', INTERVAL '%d seconds')", table, int64(after.Seconds())),
	}
	if o.Keep > 0 {
		out = append(out, fmt.Sprintf("SELECT add_retention_policy('%s', INTERVAL '%d seconds')", table, int64(o.Keep.Seconds())))
	}
	return out
}

// Days outside of these, seen from now, get no partition of their own: a clock
// that is wrong must not make thousands.
const (
	daysBack  = 3 * 366
	daysAhead = 2
)

// partition makes the daily partition of a table for a time, once.
func (p *postgres) partition(ctx context.Context, c *pgx.Conn, table string, at, now time.Time) error {
	day := at.UTC().Truncate(24 * time.Hour)
	name := table + "_" + day.Format("20060102")
	if p.days[name] || day.Before(now.AddDate(0, 0, -daysBack)) || day.After(now.AddDate(0, 0, daysAhead)) {
		return nil
	}
	sql := fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s.%s PARTITION OF %s.%s FOR VALUES FROM ('%s') TO ('%s')",
		p.schema, name, p.schema, table, day.Format(time.RFC3339), day.Add(24*time.Hour).Format(time.RFC3339))
	_, err := c.Exec(ctx, sql)
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.Code == "23514":
		// Rows of that day are in the default partition already, and stay there.
	case errors.As(err, &pg) && (pg.Code == "42P07" || pg.Code == "23505"):
		// Another program was first.
	case err != nil:
		return fmt.Errorf("partition %s: %w", name, err)
	}
	p.days[name] = true
	return nil
}

// expire drops the partitions of days that are older than what is kept.
func (p *postgres) expire(ctx context.Context, c *pgx.Conn, now time.Time) error {
	if p.o.Keep <= 0 || now.Sub(p.expired) < time.Hour {
		return nil
	}
	rows, err := c.Query(ctx, "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1", p.schema)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range names {
		_, text, _ := strings.Cut(name, "_")
		day, err := time.Parse("20060102", text)
		if err != nil || !day.Add(24*time.Hour).Before(now.Add(-p.o.Keep)) {
			continue
		}
		if _, err := c.Exec(ctx, "DROP TABLE IF EXISTS "+pgx.Identifier{p.schema, name}.Sanitize()); err != nil {
			return err
		}
		delete(p.days, name)
	}
	p.expired = now
	return nil
}
