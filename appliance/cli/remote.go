package cli

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"patronus/appliance"
	"patronus/configs"
	"patronus/dashboard"
	"patronus/dashboard/auth"
	"patronus/dashboard/client"
)

// remote are the flags of commands that ask a dashboard.
type remote struct {
	URL         string `help:"The dashboard, https://HOST:PORT; default: the one of patronus login." env:"PATRONUS_URL" placeholder:"URL"`
	Token       string `help:"An API token; default: the login's." env:"PATRONUS_API_TOKEN" placeholder:"TOKEN"`
	Fingerprint string `help:"SHA-256 of the dashboard's certificate, as its console shows it; default: the login's." env:"PATRONUS_FINGERPRINT" placeholder:"HEX"`
	CAFile      string `name:"ca-file" help:"PEM file of the authority that signs the dashboard's certificate." env:"PATRONUS_CA_FILE" type:"path" placeholder:"FILE"`
	Output      string `help:"table, json or yaml." short:"o" default:"table" enum:"table,json,yaml"`
}

// login is what patronus login keeps: a file that only its user may read.
type login struct {
	URL         string    `json:"url"`
	Fingerprint string    `json:"fingerprint,omitempty"`
	CAFile      string    `json:"ca_file,omitempty"`
	User        string    `json:"user"`
	Token       string    `json:"token"`
	Refresh     string    `json:"refresh_token,omitempty"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
}

func loginFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("where to keep the login: %w", err)
	}
	return filepath.Join(dir, "patronus", "login.json"), nil
}

// errNoLogin says what to do about it.
var errNoLogin = fmt.Errorf("%w: which dashboard? Run patronus login https://HOST:8443, or set PATRONUS_URL and PATRONUS_API_TOKEN", ErrUsage)

func loadLogin() (*login, error) {
	name, err := loginFile()
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoLogin
	}
	if err != nil {
		return nil, fmt.Errorf("login: %w", err)
	}
	l := &login{}
	if err := json.Unmarshal(text, l); err != nil {
		return nil, fmt.Errorf("login: %s: %w; run patronus login again", name, err)
	}
	return l, nil
}

func (l *login) save() error {
	name, err := loginFile()
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("login: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("login: %w", err)
	}
	return configs.ReplaceFile(name, append(text, '\n'))
}

// refreshBefore is how long before its end a login's token is renewed.
const refreshBefore = time.Minute

// client is what the flags and the login say. A token that is about to end is
// renewed.
func (r *remote) client(ctx context.Context) (*client.Client, error) {
	l := &login{URL: r.URL, Token: r.Token, Fingerprint: r.Fingerprint, CAFile: r.CAFile}
	if r.URL == "" || r.Token == "" {
		kept, err := loadLogin()
		switch {
		case err != nil && r.URL == "":
			return nil, err
		case err == nil && (r.URL == "" || r.URL == kept.URL):
			if r.Token != "" {
				kept.Token, kept.Refresh = r.Token, ""
			}
			if r.Fingerprint != "" {
				kept.Fingerprint = r.Fingerprint
			}
			if r.CAFile != "" {
				kept.CAFile = r.CAFile
			}
			l = kept
		}
	}
	c, err := l.client()
	if err != nil || l.Refresh == "" || time.Until(l.ExpiresAt) > refreshBefore {
		return c, err
	}
	got, err := c.Refresh(ctx, dashboard.RefreshBody{RefreshToken: auth.Secret(l.Refresh)})
	if client.Status(err) == 401 {
		return nil, fmt.Errorf("the login at %s has ended: run patronus login %s", l.URL, l.URL)
	}
	if err != nil {
		return nil, err
	}
	l.Token, l.Refresh, l.ExpiresAt = got.Token, got.RefreshToken, got.ExpiresAt
	if err := l.save(); err != nil {
		return nil, err
	}
	return l.client()
}

func (l *login) client() (*client.Client, error) {
	o := client.Options{URL: l.URL, Token: l.Token, Fingerprint: l.Fingerprint, UserAgent: "patronus/" + appliance.Version}
	if l.CAFile != "" {
		text, err := os.ReadFile(l.CAFile)
		if err != nil {
			return nil, fmt.Errorf("authority: %w", err)
		}
		o.Authorities = x509.NewCertPool()
		if !o.Authorities.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("authority %s: no certificate in PEM", l.CAFile)
		}
	}
	c, err := client.New(o)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	return c, nil
}

// print writes v as JSON or YAML, or calls table.
func (r *remote) print(w io.Writer, v any, table func(*tabwriter.Writer)) error {
	switch r.Output {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "yaml":
		text, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	table(t)
	return t.Flush()
}

// explained makes an error of the API one of the command line: each field on a
// line of its own.
func explained(err error) error {
	p := (*dashboard.Problem)(nil)
	if !errors.As(err, &p) {
		if errors.As(err, new(x509.UnknownAuthorityError)) {
			return fmt.Errorf("%w\nif the dashboard made its certificate itself, compare the SHA-256 that its console shows, and give it with --fingerprint", err)
		}
		return err
	}
	var b strings.Builder
	b.WriteString(p.Detail)
	if p.Detail == "" {
		b.WriteString(p.Title)
	}
	for _, f := range p.Errors {
		fmt.Fprintf(&b, "\n  %s", f.Field)
		if f.Line > 0 {
			fmt.Fprintf(&b, " (line %d, column %d)", f.Line, f.Column)
		}
		fmt.Fprintf(&b, ": %s", f.Detail)
	}
	switch p.Status {
	case 401:
		b.WriteString("\nrun patronus login, or give a token by PATRONUS_API_TOKEN")
	case 403:
		b.WriteString("\npatronus whoami shows what you may do")
	}
	return errors.New(b.String())
}

type loginCmd struct {
	URL           string `arg:"" help:"The dashboard, https://HOST:8443."`
	User          string `help:"The user; asked for if it is left out." short:"u" placeholder:"NAME"`
	PasswordStdin bool   `help:"Read the password from standard input without asking."`
	Fingerprint   string `help:"SHA-256 of the dashboard's certificate, as its console shows it." placeholder:"HEX"`
	CAFile        string `name:"ca-file" help:"PEM file of the authority that signs the dashboard's certificate." type:"path" placeholder:"FILE"`
}

// Run implements kong's command.
func (c *loginCmd) Run(ctx context.Context, env *Env) error {
	l := &login{URL: strings.TrimSuffix(c.URL, "/"), Fingerprint: c.Fingerprint, CAFile: c.CAFile}
	in := bufio.NewReader(env.Stdin)
	user, err := c.User, error(nil)
	if user == "" {
		fmt.Fprint(env.Stderr, "user: ")
		if user, err = line(in); err != nil {
			return err
		}
	}
	if !c.PasswordStdin {
		fmt.Fprint(env.Stderr, "password: ")
		restore := hideInput(env.Stdin)
		defer restore()
	}
	password, err := line(in)
	if !c.PasswordStdin {
		fmt.Fprintln(env.Stderr)
	}
	if err != nil {
		return err
	}
	api, err := l.client()
	if err != nil {
		return err
	}
	defer api.Close()
	got, err := api.Login(ctx, dashboard.LoginBody{Username: user, Password: auth.Secret(password)})
	if err != nil {
		return explained(err)
	}
	l.User, l.Token, l.Refresh, l.ExpiresAt = got.User.Name, got.Token, got.RefreshToken, got.ExpiresAt
	if err := l.save(); err != nil {
		return err
	}
	fmt.Fprintf(env.Stdout, "signed in at %s as %s (%s)\n", l.URL, got.User.Name, got.User.Role)
	return nil
}

// line reads one without its end.
func line(in *bufio.Reader) (string, error) {
	text, err := in.ReadString('\n')
	if err != nil && (text == "" || !errors.Is(err, io.EOF)) {
		return "", fmt.Errorf("standard input: %w", err)
	}
	return strings.TrimRight(text, "\r\n"), nil
}

// hideInput keeps a terminal from showing what is typed, until restore.
func hideInput(in io.Reader) (restore func()) {
	f, ok := in.(*os.File)
	if !ok {
		return func() {}
	}
	old, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return func() {} // no terminal
	}
	quiet := *old
	quiet.Lflag &^= unix.ECHO
	_ = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &quiet)
	return func() { _ = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, old) }
}

type logoutCmd struct{}

// Run implements kong's command.
func (logoutCmd) Run(ctx context.Context, env *Env) error {
	l, err := loadLogin()
	if err != nil {
		return err
	}
	api, err := l.client()
	if err != nil {
		return err
	}
	defer api.Close()
	ended := api.Logout(ctx)
	name, err := loginFile()
	if err != nil {
		return err
	}
	if err := os.Remove(name); err != nil {
		return fmt.Errorf("logout: %w", err)
	}
	if ended != nil && client.Status(ended) != 401 {
		return fmt.Errorf("the login is forgotten here, but the dashboard was not told: %w", explained(ended))
	}
	fmt.Fprintf(env.Stdout, "signed out of %s\n", l.URL)
	return nil
}

type whoamiCmd struct{ remote }

// Run implements kong's command.
func (c *whoamiCmd) Run(ctx context.Context, env *Env) error {
	api, err := c.client(ctx)
	if err != nil {
		return err
	}
	defer api.Close()
	me, err := api.Me(ctx)
	if err != nil {
		return explained(err)
	}
	return c.print(env.Stdout, me, func(t *tabwriter.Writer) {
		fmt.Fprintf(t, "user\t%s\nrole\t%s\nmay\t%s\n", me.Name, me.Role, strings.Join(me.Permissions.Names(), " "))
	})
}
