package configs

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Export is where history is streamed to as it is made. It is the same for all
// sites of a fabric.
type Export struct {
	// QueueMB bounds what may wait on the disk for engines that are down, MiB.
	QueueMB int      `yaml:"queue_mb" json:"queue_mb,omitempty"`
	Engines []Engine `yaml:"engines" json:"engines,omitempty"`
}

// EngineKind is what an engine understands.
type EngineKind string

// The kinds of engine.
const (
	EnginePrometheus EngineKind = "prometheus" // remote write 2.0, or 1.0
	EngineInflux     EngineKind = "influxdb"   // line protocol
	EnginePostgres   EngineKind = "postgres"   // TimescaleDB if it is there
	EngineSyslog     EngineKind = "syslog"     // RFC 5424: events only
)

// EngineFrom says who streams to an engine.
type EngineFrom string

// Who streams: the dashboard what it collects of all sites, or each appliance
// what is its own.
const (
	FromDashboard EngineFrom = "dashboard"
	FromAppliance EngineFrom = "appliance"
)

// Engine is one place that history is streamed to. Fields that do not belong
// to its kind are refused. Files are named without a directory: they lie in
// node/secrets below the data directory of who streams, so that nobody who may
// change a configuration can have another file sent away as a password.
type Engine struct {
	Name string     `yaml:"name" json:"name"`
	Kind EngineKind `yaml:"kind" json:"kind"`
	From EngineFrom `yaml:"from" json:"from,omitempty"`
	// URL has no password in it. That of a syslog engine is udp, tcp or tls.
	URL string `yaml:"url" json:"url"`
	// Private allows loopback and private addresses.
	Private bool     `yaml:"private" json:"private,omitempty"`
	Skip    []string `yaml:"skip" json:"skip,omitempty"`

	User         string            `yaml:"user" json:"user,omitempty"`
	PasswordFile string            `yaml:"password_file" json:"password_file,omitempty"`
	TokenFile    string            `yaml:"token_file" json:"token_file,omitempty"`
	Headers      map[string]string `yaml:"headers" json:"headers,omitempty"`

	Database        string `yaml:"database" json:"database,omitempty"`
	RetentionPolicy string `yaml:"retention_policy" json:"retention_policy,omitempty"`
	Org             string `yaml:"org" json:"org,omitempty"`
	Bucket          string `yaml:"bucket" json:"bucket,omitempty"`
	Schema          string `yaml:"schema" json:"schema,omitempty"`
	KeepDays        int    `yaml:"keep_days" json:"keep_days,omitempty"`

	CAFile     string `yaml:"ca_file" json:"ca_file,omitempty"`
	CertFile   string `yaml:"cert_file" json:"cert_file,omitempty"`
	KeyFile    string `yaml:"key_file" json:"key_file,omitempty"`
	ServerName string `yaml:"server_name" json:"server_name,omitempty"`
}

// Bounds of an export.
const (
	DefaultQueueMB = 1024
	minQueueMB     = 16
	maxEngines     = 16
)

func (e *Export) withDefaults() {
	if len(e.Engines) > 0 {
		orElse(&e.QueueMB, DefaultQueueMB)
	}
	for i := range e.Engines {
		orElse(&e.Engines[i].From, FromDashboard)
	}
}

func (v *validator) export() {
	e := &v.c.Export
	switch {
	case len(e.Engines) > maxEngines:
		v.bad(len(e.Engines), fmt.Sprintf("are too many: at most %d", maxEngines), "export.engines")
	case len(e.Engines) > 0 && e.QueueMB < minQueueMB, e.QueueMB < 0:
		v.bad(e.QueueMB, fmt.Sprintf("is too small: at least %d", minQueueMB), "export.queue_mb")
	}
	names := make(map[string]bool)
	for i := range e.Engines {
		x := &e.Engines[i]
		path := fmt.Sprintf("export.engines[%d]", i)
		v.name(x.Name, names, "%s.name", path)
		switch x.From {
		case FromDashboard:
		case FromAppliance:
			if x.Kind != EngineSyslog {
				v.bad(x.From, "is for syslog alone: samples and flows of all sites go out from the dashboard", "%s.from", path)
			}
		default:
			v.bad(x.From, "is neither dashboard nor appliance", "%s.from", path)
		}
		for k, what := range x.Skip {
			if what != "samples" && what != "flows" && what != "events" {
				v.bad(what, "is none of samples, flows and events", "%s.skip[%d]", path, k)
			}
		}
		v.engine(x, path)
	}
}

// engine checks what belongs to the kind, and that nothing else is given.
func (v *validator) engine(x *Engine, path string) {
	var schemes, fields []string
	switch x.Kind {
	case EnginePrometheus:
		schemes, fields = []string{"http", "https"}, []string{"user", "password_file", "token_file", "headers"}
	case EngineInflux:
		schemes = []string{"http", "https"}
		fields = []string{"user", "password_file", "token_file", "database", "retention_policy", "org", "bucket"}
		if (x.Database == "") == (x.Bucket == "") {
			v.bad(nil, "is missing: give database, of version 1, or bucket, of version 2", "%s.database", path)
		}
	case EnginePostgres:
		schemes, fields = []string{"postgres", "postgresql"}, []string{"password_file", "schema", "keep_days"}
		if x.Schema != "" && !isSchema(x.Schema) {
			v.bad(x.Schema, "is not a schema: lower-case letters, digits and underscores, at most 31", "%s.schema", path)
		}
		if x.KeepDays < 0 {
			v.bad(x.KeepDays, "is negative", "%s.keep_days", path)
		}
	case EngineSyslog:
		schemes = []string{"udp", "tcp", "tls"}
	default:
		v.bad(x.Kind, "is no kind of engine: prometheus, influxdb, postgres or syslog", "%s.kind", path)
		return
	}
	v.engineURL(x, schemes, path)
	given := []struct {
		name string
		is   bool
	}{
		{"user", x.User != ""}, {"password_file", x.PasswordFile != ""}, {"token_file", x.TokenFile != ""}, {"headers", len(x.Headers) > 0},
		{"database", x.Database != ""}, {"retention_policy", x.RetentionPolicy != ""}, {"org", x.Org != ""}, {"bucket", x.Bucket != ""},
		{"schema", x.Schema != ""}, {"keep_days", x.KeepDays != 0},
	}
	for _, g := range given {
		if g.is && !slices.Contains(fields, g.name) {
			v.bad(nil, "means nothing to "+string(x.Kind)+": leave it out", "%s.%s", path, g.name)
		}
	}
	for name, value := range x.Headers {
		if !isHeader(name) || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
			v.bad(name, "is not a header of printable letters", "%s.headers", path)
		}
		if strings.EqualFold(name, "authorization") {
			v.bad(nil, "would be a secret in the configuration: name a file in token_file or password_file", "%s.headers", path)
		}
	}
	for _, f := range []struct{ name, file string }{
		{"password_file", x.PasswordFile}, {"token_file", x.TokenFile}, {"ca_file", x.CAFile}, {"cert_file", x.CertFile}, {"key_file", x.KeyFile},
	} {
		if f.file != "" && !isFileName(f.file) {
			v.bad(f.file, "is not a plain file name: it lies in node/secrets below the data directory", "%s.%s", path, f.name)
		}
	}
	if (x.CertFile == "") != (x.KeyFile == "") {
		v.bad(nil, "goes with key_file: give both or none", "%s.cert_file", path)
	}
	if x.User != "" && x.TokenFile != "" {
		v.bad(nil, "excludes user", "%s.token_file", path)
	}
}

func (v *validator) engineURL(x *Engine, schemes []string, path string) {
	u, err := url.Parse(x.URL)
	switch {
	case x.URL == "":
		v.bad(nil, "is missing", "%s.url", path)
		return
	case err != nil: // not shown: it may hold a password
		v.bad(nil, "is not a URL", "%s.url", path)
		return
	}
	if _, has := u.User.Password(); has || u.Query().Has("password") || u.Query().Has("p") || u.Query().Has("token") {
		v.bad(nil, "holds a secret: name a file that does in password_file or token_file", "%s.url", path)
		return
	}
	switch {
	case !slices.Contains(schemes, u.Scheme):
		v.bad(u.Scheme, "is no scheme of "+string(x.Kind)+": "+strings.Join(schemes, ", "), "%s.url", path)
	case u.Hostname() == "":
		v.bad(x.URL, "has no host", "%s.url", path)
	case x.Kind == EngineSyslog && (u.Path != "" || u.RawQuery != "" || u.User != nil):
		v.bad(x.URL, "has more than a scheme, a host and a port", "%s.url", path)
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			v.bad(port, "is not a port", "%s.url", path)
		}
	}
}

// Syslog is the address and the transport of a syslog engine. Ports are those
// of RFC 5426, RFC 6587 and RFC 5425 if none is given.
func (x *Engine) Syslog() (network, addr string) {
	u, err := url.Parse(x.URL)
	if err != nil {
		return "", ""
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"udp": "514", "tcp": "601", "tls": "6514"}[u.Scheme]
	}
	return u.Scheme, net.JoinHostPort(u.Hostname(), port)
}

// Skips reports whether a kind of data (samples, flows, events) is left out.
func (x *Engine) Skips(what string) bool { return slices.Contains(x.Skip, what) }

func isSchema(s string) bool {
	for i := range len(s) {
		if !isLower(s[i]) && s[i] != '_' && (i == 0 || !isDigit(s[i])) {
			return false
		}
	}
	return len(s) <= 31
}

func isHeader(s string) bool {
	for i := range len(s) {
		if !isLower(s[i]) && !isUpper(s[i]) && !isDigit(s[i]) && s[i] != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// isFileName reports whether s names a file without a directory.
func isFileName(s string) bool {
	for i := range len(s) {
		if !isLower(s[i]) && !isUpper(s[i]) && !isDigit(s[i]) && s[i] != '-' && s[i] != '_' && s[i] != '.' {
			return false
		}
	}
	return s != "" && s[0] != '.' && len(s) <= 63
}
