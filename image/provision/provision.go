package provision

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile is the largest file that is read, bytes.
const maxFile = 4 << 20

// Names of the files, in a directory or a volume.
const (
	ConfigFile  = "patronus.yaml"
	NetworkFile = "network.yaml"
	TokenFile   = "token"
)

// Token is a one-time enrollment token. It never prints.
type Token string

// String is "(token)".
func (Token) String() string { return "(token)" }

// GoString is "(token)".
func (Token) GoString() string { return "(token)" }

// Found is what one source has.
type Found struct {
	Source  string // for people
	Config  []byte // YAML, as configs.Parse reads it
	Network []byte // YAML, see [ParseNetwork]
	Token   Token
}

// Empty reports whether there is neither a configuration nor a token.
func (f Found) Empty() bool { return len(f.Config) == 0 && f.Token == "" }

// First is the first source that has a configuration or a token. Addresses of
// interfaces come from there, or else from the first source that has any.
func First(sources ...Found) Found {
	var out Found
	for _, f := range sources {
		if !f.Empty() {
			out = f
			break
		}
	}
	for _, f := range sources {
		if len(out.Network) == 0 {
			out.Network = f.Network
		}
	}
	return out
}

func (f *Found) set(name string, data []byte) {
	switch name {
	case ConfigFile:
		f.Config = data
	case NetworkFile:
		f.Network = data
	case TokenFile:
		f.Token = Token(strings.TrimSpace(string(data)))
	}
}

// FromDir reads the three files of a directory.
func FromDir(source string, dir fs.FS) (Found, error) {
	f := Found{Source: source}
	for _, name := range []string{ConfigFile, NetworkFile, TokenFile} {
		data, err := readFile(dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Found{}, fmt.Errorf("%s: %w", source, err)
		}
		f.set(name, data)
	}
	return f, nil
}

func readFile(dir fs.FS, name string) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d MiB", name, maxFile>>20)
	}
	return data, err
}

// FromNoCloud reads a NoCloud volume: the three files themselves, or the
// write_files of a #cloud-config in user-data with those file names.
func FromNoCloud(volume fs.FS) (Found, error) {
	const source = "cidata volume"
	f, err := FromDir(source, volume)
	if err != nil || !f.Empty() {
		return f, err
	}
	text, err := readFile(volume, "user-data")
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return Found{}, fmt.Errorf("%s: %w", source, err)
	}
	if !strings.HasPrefix(string(text), "#cloud-config") {
		return f, nil // a script, say, for somebody else
	}
	var doc struct {
		Files []struct {
			Path     string `yaml:"path"`
			Content  string `yaml:"content"`
			Encoding string `yaml:"encoding"`
		} `yaml:"write_files"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return Found{}, fmt.Errorf("%s: user-data: %w", source, err)
	}
	for _, w := range doc.Files {
		data := []byte(w.Content)
		switch w.Encoding {
		case "", "text/plain":
		case "b64", "base64":
			if data, err = base64.StdEncoding.DecodeString(strings.TrimSpace(w.Content)); err != nil {
				return Found{}, fmt.Errorf("%s: user-data: %s: %w", source, w.Path, err)
			}
		default:
			return Found{}, fmt.Errorf("%s: user-data: %s: encoding %q is not known", source, w.Path, w.Encoding)
		}
		f.set(path.Base(w.Path), data)
	}
	return f, nil
}

// Credentials are named secrets that the machine hands over, after the
// convention of systemd (systemd.io/CREDENTIALS): patronus.config,
// patronus.network and patronus.token.
type Credentials map[string][]byte

// Found is what credentials say.
func (c Credentials) Found(source string) Found {
	f := Found{Source: source}
	f.set(ConfigFile, c["patronus.config"])
	f.set(NetworkFile, c["patronus.network"])
	f.set(TokenFile, c["patronus.token"])
	return f
}

// FromSMBIOS takes the credentials among the OEM strings (type 11) of an
// SMBIOS structure table (DMTF DSP0134). What is not one is skipped.
func FromSMBIOS(table []byte) Credentials {
	c := Credentials{}
	for len(table) >= 4 && int(table[1]) >= 4 && int(table[1]) <= len(table) {
		kind := table[0]
		rest := table[table[1]:]
		end := strings.Index(string(rest), "\x00\x00")
		if end < 0 {
			break
		}
		if kind == 11 {
			for s := range strings.SplitSeq(string(rest[:end]), "\x00") {
				c.add(s)
			}
		}
		if kind == 127 {
			break
		}
		table = rest[end+2:]
	}
	return c
}

func (c Credentials) add(s string) {
	name, value, ok := strings.Cut(s, "=")
	if plain, is := strings.CutPrefix(name, "io.systemd.credential:"); ok && is {
		c[plain] = []byte(value)
	}
	if binary, is := strings.CutPrefix(name, "io.systemd.credential.binary:"); ok && is {
		if data, err := base64.StdEncoding.DecodeString(value); err == nil {
			c[binary] = data
		}
	}
}

// FromCommandLine reads patronus.token= and, in base64, patronus.config= and
// patronus.network= of the kernel's command line.
func FromCommandLine(line string) (Found, error) {
	c := Credentials{}
	for word := range strings.FieldsSeq(line) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "patronus.token":
			c[name] = []byte(value)
		case "patronus.config", "patronus.network":
			data, err := base64.StdEncoding.DecodeString(value)
			if err != nil {
				return Found{}, fmt.Errorf("kernel command line: %s: %w", name, err)
			}
			c[name] = data
		}
	}
	return c.Found("kernel command line"), nil
}

// Label says what file system a volume has and how it is named, from its first
// 36 KiB: vfat or iso9660, or nothing that is known.
func Label(head []byte) (fsType, label string) {
	if len(head) >= 32768+72 && string(head[32769:32774]) == "CD001" {
		return "iso9660", strings.TrimSpace(string(head[32768+40 : 32768+72]))
	}
	if len(head) >= 512 && head[510] == 0x55 && head[511] == 0xaa {
		switch {
		case string(head[82:87]) == "FAT32":
			return "vfat", strings.TrimSpace(string(head[71:82]))
		case string(head[54:57]) == "FAT":
			return "vfat", strings.TrimSpace(string(head[43:54]))
		}
	}
	return "", ""
}

// LabelSize is how much of a volume [Label] wants to see, bytes.
const LabelSize = 36 << 10
