package export

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"time"

	"patronus/dashboard/export/outbound"
	"patronus/dashboard/export/syslog"
)

// Options say what is exported, and how much may wait for engines that are down.
type Options struct {
	// Dir is the queue's own directory.
	Dir string
	// MaxBytes bounds the queue on disk (default 1 GiB).
	MaxBytes int64
	// Reserve is the free space left to others on the file system (default 64
	// MiB; negative: none).
	Reserve int64
	// ReportEvery is how often losses are reported (default 10 s).
	ReportEvery time.Duration
	Sinks       []Sink
}

// Sink is one engine. Exactly one of the pointers is set.
type Sink struct {
	// Name is its name in metrics and events, and of its cursor: lower-case
	// letters, digits and hyphens. Renaming a sink starts it anew.
	Name string
	// Skip leaves out what the engine should not get.
	Skip Skip
	// Retry bounds the back-off after failures.
	Retry Retry
	// Private allows loopback and private addresses, where most engines live.
	Private bool
	TLS     outbound.TLS

	RemoteWrite *RemoteWrite
	Influx      *Influx
	Postgres    *Postgres
	Syslog      *Syslog
}

// Skip leaves out kinds of data.
type Skip struct{ Samples, Flows, Events bool }

// Retry is an exponential back-off with full jitter.
type Retry struct {
	Min time.Duration // default 500 ms
	Max time.Duration // default 1 min
}

// RemoteWrite is a receiver of Prometheus remote write 2.0 or 1.0: Prometheus,
// VictoriaMetrics, Mimir, Thanos. It takes samples only.
type RemoteWrite struct {
	URL string // http or https, without a password
	// User and Password are basic authentication; Token is a bearer's instead.
	User     string
	Password outbound.Secret
	Token    outbound.Secret
	// Headers are sent as they are; X-Scope-OrgID chooses a tenant.
	Headers map[string]string
	// Version1 sends remote write 1.0 without asking for 2.0 first.
	Version1 bool
}

// Influx is a server that takes InfluxDB's line protocol.
type Influx struct {
	URL string // of the server, without /write
	// Database and RetentionPolicy address version 1.
	Database, RetentionPolicy string
	// Org and Bucket address version 2 and later.
	Org, Bucket string
	// User and Password are version 1's; Token is version 2's.
	User     string
	Password outbound.Secret
	Token    outbound.Secret
}

// Postgres is a PostgreSQL server, with TimescaleDB if it has the extension.
type Postgres struct {
	// URL is postgres://user@host:port/database?sslmode=verify-full, without a
	// password.
	URL      string
	Password outbound.Secret
	// Schema is made and kept by us (default "patronus").
	Schema string
	// Keep is how long rows are kept; 0: for ever.
	Keep time.Duration
	// CompressAfter is when TimescaleDB compresses a day (default 7 days).
	CompressAfter time.Duration
}

// Syslog is a receiver of RFC 5424 messages. It takes events only, and does not
// acknowledge them.
type Syslog struct {
	Network  syslog.Network
	Addr     string
	Facility syslog.Facility // default Local0
	// Enterprise is the private enterprise number of our structured data
	// (default 32473, RFC 5612's for examples: Patronus has none of its own).
	Enterprise uint32
}

// FieldError is an option that is wrong.
type FieldError struct {
	Sink  string // empty: not of a sink
	Field string
	Why   string
}

func (e *FieldError) Error() string {
	if e.Sink == "" {
		return fmt.Sprintf("export: %s: %s", e.Field, e.Why)
	}
	return fmt.Sprintf("export: sink %s: %s: %s", e.Sink, e.Field, e.Why)
}

var (
	sinkName   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,30}$`)
	headerName = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
)

// Validate reports everything that is wrong, as joined *FieldErrors. Nothing is
// dialled and no secret is read.
func (o *Options) Validate() error {
	var errs []error
	if o.Dir == "" {
		errs = append(errs, &FieldError{"", "Dir", "is needed"})
	}
	seen := map[string]bool{}
	for i := range o.Sinks {
		s := &o.Sinks[i]
		bad := func(field, why string) {
			errs = append(errs, &FieldError{s.Name, field, why})
		}
		if !sinkName.MatchString(s.Name) {
			bad("Name", "want lower-case letters, digits and hyphens")
		}
		if seen[s.Name] {
			bad("Name", "is there twice")
		}
		seen[s.Name] = true
		s.validate(bad)
	}
	return errors.Join(errs...)
}

func (s *Sink) validate(bad func(field, why string)) {
	set := 0
	if s.Retry.Min < 0 || s.Retry.Max < 0 {
		bad("Retry", "is negative")
	}
	if r := s.RemoteWrite; r != nil {
		set++
		checkURL(r.URL, bad, "http", "https")
		if r.User != "" && r.Token != "" {
			bad("Token", "excludes User")
		}
		for name, value := range r.Headers {
			if !headerName.MatchString(name) || !printable(value) {
				bad("Headers", fmt.Sprintf("%.64q is no header", name))
			}
		}
	}
	if i := s.Influx; i != nil {
		set++
		checkURL(i.URL, bad, "http", "https")
		if (i.Database == "") == (i.Bucket == "") {
			bad("Database", "want either Database, of version 1, or Bucket, of version 2")
		}
	}
	if p := s.Postgres; p != nil {
		set++
		checkURL(p.URL, bad, "postgres", "postgresql")
		if p.Schema != "" && !schemaName.MatchString(p.Schema) {
			bad("Schema", "want lower-case letters, digits and underscores, at most 31")
		}
		if p.Keep < 0 || p.Keep > 0 && p.Keep < 24*time.Hour {
			bad("Keep", "want at least one day, or 0")
		}
	}
	if l := s.Syslog; l != nil {
		set++
		if _, err := syslog.NewWriter(syslog.Options{Network: l.Network, Addr: l.Addr}); err != nil {
			bad("Syslog", err.Error())
		}
	}
	if set != 1 {
		bad("Sink", "want exactly one of RemoteWrite, Influx, Postgres, Syslog")
	}
}

func checkURL(text string, bad func(field, why string), schemes ...string) {
	u, err := url.Parse(text)
	if err != nil {
		bad("URL", "cannot be parsed") // the error would repeat what may hold a password
		return
	}
	if _, has := u.User.Password(); has {
		bad("URL", "holds a password; name a file that does in Password")
	}
	if u.Query().Has("password") || u.Query().Has("p") {
		bad("URL", "holds a password in its query; name a file that does in Password")
	}
	if u.Host == "" {
		bad("URL", "has no host")
	}
	for _, s := range schemes {
		if u.Scheme == s {
			return
		}
	}
	bad("URL", fmt.Sprintf("want one of %v", schemes))
}

func printable(s string) bool {
	for _, r := range s {
		if r < ' ' || r >= 0x7f {
			return false
		}
	}
	return true
}
