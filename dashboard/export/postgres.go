package export

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"patronus/appliance/store"
	"patronus/dashboard/export/outbound"
	"patronus/dashboard/export/queue"
)

// postgres sends rows by COPY into a temporary table, and from there into ours
// what is not there yet.
type postgres struct {
	o      *Postgres
	guard  outbound.Guard
	tls    outbound.TLS
	schema string

	conn    *pgx.Conn
	hyper   bool
	days    map[string]bool // partitions that are there
	expired time.Time
}

func newPostgres(s *Sink) (*postgres, error) {
	p := &postgres{
		o: s.Postgres, guard: outbound.Guard{Private: s.Private}, tls: s.TLS,
		schema: cmp.Or(s.Postgres.Schema, "patronus"), days: map[string]bool{},
	}
	_, err := p.config("")
	return p, err
}

// config is how to connect. TLS follows the URL's sslmode; a CAFile or a
// certificate of the sink's own asks for it whatever the URL says.
func (p *postgres) config(password string) (*pgx.ConnConfig, error) {
	c, err := pgx.ParseConfig(p.o.URL)
	if err != nil {
		return nil, errors.New("postgres: URL cannot be used") // pgx would repeat it
	}
	if password != "" {
		c.Password = password
	}
	if p.tls != (outbound.TLS{}) {
		t, err := p.tls.Config()
		if err != nil {
			return nil, err
		}
		t.ServerName = cmp.Or(t.ServerName, c.Host)
		c.TLSConfig, c.Fallbacks = t, nil
	}
	dialer := p.guard.Dialer()
	c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, addr)
	}
	c.ConnectTimeout = 10 * time.Second
	c.RuntimeParams["application_name"] = userAgent
	return c, nil
}

func (p *postgres) close() error {
	if p.conn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := p.conn.Close(ctx)
	p.conn = nil
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	return nil
}

func (p *postgres) send(ctx context.Context, batches []store.Batch) (queue.Items, error) {
	err := p.connect(ctx)
	if err == nil {
		err = p.write(ctx, batches)
	}
	if err == nil {
		return queue.Items{}, nil
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		// Only SQLSTATE, message and detail without rows: a row may hold what
		// does not belong in a log.
		err = fmt.Errorf("postgres: %s: %s", pg.Code, oneLine(pg.Message))
		// Class 22: data exception; 23: integrity constraint (SQL:2016, 24.1).
		if strings.HasPrefix(pg.Code, "22") || strings.HasPrefix(pg.Code, "23") {
			return queue.Items{}, &refusal{err}
		}
		// A table that somebody dropped is made again by connecting anew.
		if strings.HasPrefix(pg.Code, "42") || strings.HasPrefix(pg.Code, "3F") {
			return queue.Items{}, errors.Join(err, p.close())
		}
		return queue.Items{}, err
	}
	err = fmt.Errorf("postgres: %w", err)
	if p.conn != nil && p.conn.IsClosed() {
		p.conn = nil
	}
	return queue.Items{}, err
}

// connect dials and sees to the tables, if there is no connection.
func (p *postgres) connect(ctx context.Context) error {
	if p.conn != nil && !p.conn.IsClosed() {
		return nil
	}
	password, err := p.o.Password.Read()
	if err != nil {
		return err
	}
	config, err := p.config(password)
	if err != nil {
		return err
	}
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	clear(p.days)
	if p.hyper, err = p.migrate(ctx, c); err != nil {
		return errors.Join(err, c.Close(ctx))
	}
	p.conn = c
	return nil
}

// rows are the rows of one table.
type rows struct {
	table   string
	columns []string
	values  [][]any
	times   map[int64]time.Time // by day
}

func (r *rows) add(at int64, values []any) {
	t := time.UnixMilli(at).UTC()
	r.times[at/86400000] = t
	r.values = append(r.values, append([]any{t}, values...))
}

func (p *postgres) write(ctx context.Context, batches []store.Batch) error {
	now := time.Now()
	all := rowsOf(batches)
	for i := range all {
		for _, t := range all[i].times {
			if p.hyper {
				break
			}
			if err := p.partition(ctx, p.conn, all[i].table, t, now); err != nil {
				return err
			}
		}
	}
	tx, err := p.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }() // nothing, once it is committed
	for i := range all {
		if err := p.copy(ctx, tx, &all[i]); err != nil {
			return err
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	if p.hyper {
		return nil
	}
	return p.expire(ctx, p.conn, now)
}

// copy puts the rows into a temporary table and moves the new ones on.
func (p *postgres) copy(ctx context.Context, tx pgx.Tx, r *rows) error {
	if len(r.values) == 0 {
		return nil
	}
	target, stage := pgx.Identifier{p.schema, r.table}.Sanitize(), "stage_"+r.table
	columns := make([]string, len(r.columns))
	for i, c := range r.columns {
		columns[i] = pgx.Identifier{c}.Sanitize()
	}
	list := strings.Join(columns, ", ")
	if _, err := tx.Exec(ctx, "CREATE TEMP TABLE IF NOT EXISTS "+stage+" (LIKE "+target+") ON COMMIT DELETE ROWS"); err != nil {
		return err
	}
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{stage}, r.columns, pgx.CopyFromRows(r.values)); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "INSERT INTO "+target+" ("+list+") SELECT "+list+" FROM "+stage+" ON CONFLICT DO NOTHING")
	return err
}

// rowsOf turns batches into rows.
func rowsOf(batches []store.Batch) []rows {
	samples := rows{table: samplesTable, columns: []string{"at", "site", "path", "clock_offset_ms"}, times: map[int64]time.Time{}}
	for m := range store.Metric(store.NumMetrics) {
		samples.columns = append(samples.columns, m.Name())
	}
	flows := rows{table: flowsTable, times: map[int64]time.Time{}, columns: []string{
		"at", "site", "flow_key", "change", "end", "src", "dst", "src_port", "dst_port", "protocol", "status", "path", "class",
		"policy", "rule", "reason", "moves", "forward_packets", "forward_bytes", "reverse_packets", "reverse_bytes",
		"started_at", "seen_at", "ended_at", "decision",
	}}
	events := rows{table: eventsTable, times: map[int64]time.Time{}, columns: []string{"at", "id", "event_type", "severity", "site", "source_id", "data"}}
	for i := range batches {
		b := &batches[i]
		for j := range b.Samples {
			samples.add(b.Samples[j].At, sampleRow(&b.Samples[j]))
		}
		for j := range b.Flows {
			flows.add(b.Flows[j].At, flowRow(&b.Flows[j]))
		}
		for j := range b.Events {
			e := &b.Events[j]
			events.add(e.At, []any{text(e.ID), text(e.Type), text(e.Severity), optional(e.Site), optional(e.Source), document(e.Data)})
		}
	}
	return []rows{samples, flows, events}
}

func sampleRow(s *store.SeriesSample) []any {
	row := []any{text(s.Site), text(string(s.Path)), s.Offset}
	for m, v := range s.V {
		if v == store.Missing {
			row = append(row, nil)
			continue
		}
		row = append(row, float64(v)/math.Round(1/store.Metric(m).Scale()))
	}
	return row
}

func flowRow(f *store.FlowRecord) []any {
	var decision json.RawMessage
	if f.Decision != nil {
		// A decision that cannot be written is left out; the flow is not.
		decision, _ = json.Marshal(f.Decision)
	}
	return []any{
		text(f.Site), text(f.ID), text(f.Change), optional(f.End), address(f.Src), address(f.Dst), int32(f.SrcPort), int32(f.DstPort),
		text(f.Protocol), text(f.Status), optional(string(f.Path)), optional(f.Class), optional(f.Policy), int32(f.Rule), optional(f.Reason),
		int64(f.Moves), signed(f.Forward.Packets), signed(f.Forward.Bytes), signed(f.Reverse.Packets), signed(f.Reverse.Bytes),
		moment(f.Started), moment(f.Seen), moment(f.Ended), document(decision),
	}
}

// text is a string that the server takes: UTF-8 without NUL.
func text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "")
}

func optional(s string) any {
	if s == "" {
		return nil
	}
	return text(s)
}

func address(a netip.Addr) any {
	if !a.IsValid() {
		return nil
	}
	return a.WithZone("")
}

func moment(ms int64) any {
	if ms <= 0 {
		return nil
	}
	return time.UnixMilli(ms).UTC()
}

func signed(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// document is JSON that the server takes: jsonb knows no NUL, and what is no
// JSON becomes a string.
func document(b json.RawMessage) any {
	if len(b) == 0 {
		return nil
	}
	if !json.Valid(b) {
		quoted, err := json.Marshal(string(b))
		if err != nil {
			return nil
		}
		b = quoted
	}
	return text(string(withoutNUL(b)))
}

// withoutNUL leaves the escape of NUL out of valid JSON; a backslash that is
// itself escaped begins no escape.
func withoutNUL(b []byte) []byte {
	if !bytes.Contains(b, []byte(`\u0000`)) {
		return b
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] != '\\' || i+1 == len(b):
			out = append(out, b[i])
		case bytes.HasPrefix(b[i:], []byte(`\u0000`)):
			i += 5
		default:
			out = append(out, b[i], b[i+1])
			i++
		}
	}
	return out
}
