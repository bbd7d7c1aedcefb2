package provision

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
)

func files(kv ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = &fstest.MapFile{Data: []byte(kv[i+1])}
	}
	return m
}

func TestFromNoCloud(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString([]byte("site: b64\n"))
	for _, c := range []struct {
		name          string
		volume        fstest.MapFS
		config, token string
		wrong         bool
	}{
		{name: "empty", volume: files("meta-data", "")},
		{name: "files", volume: files("patronus.yaml", "site: a\n", "token", " abc\n"), config: "site: a\n", token: "abc"},
		{name: "user-data", volume: files("user-data", "#cloud-config\nwrite_files:\n- path: /etc/patronus/patronus.yaml\n  content: |\n    site: u\n"), config: "site: u\n"},
		{name: "base64", volume: files("user-data", "#cloud-config\nwrite_files:\n- {path: /x/patronus.yaml, encoding: b64, content: "+b64+"}\n- {path: token, content: t}\n"), config: "site: b64\n", token: "t"},
		{name: "files first", volume: files("token", "f", "user-data", "#cloud-config\nwrite_files:\n- {path: token, content: u}\n"), token: "f"},
		{name: "a script", volume: files("user-data", "#!/bin/sh\n")},
		{name: "not yaml", volume: files("user-data", "#cloud-config\n\t:"), wrong: true},
		{name: "gzip", volume: files("user-data", "#cloud-config\nwrite_files:\n- {path: token, encoding: gz, content: u}\n"), wrong: true},
		{name: "huge", volume: files("patronus.yaml", strings.Repeat(" ", maxFile+1)), wrong: true},
	} {
		f, err := FromNoCloud(c.volume)
		if (err != nil) != c.wrong || string(f.Config) != c.config || string(f.Token) != c.token {
			t.Errorf("%s: %q %q %v", c.name, f.Config, string(f.Token), err)
		}
	}
}

func smbios(kind byte, strs ...string) []byte {
	b := []byte{kind, 5, 0, 0, byte(len(strs))}
	for _, s := range strs {
		b = append(append(b, s...), 0)
	}
	if len(strs) == 0 {
		b = append(b, 0)
	}
	return append(b, 0)
}

func TestFromSMBIOS(t *testing.T) {
	config := base64.StdEncoding.EncodeToString([]byte("site: s\n"))
	table := append(smbios(1, "io.systemd.credential:patronus.token=not this one"), smbios(2)...)
	table = append(table, smbios(11, "vendor string", "io.systemd.credential:patronus.token=abc", "io.systemd.credential.binary:patronus.config="+config)...)
	table = append(table, smbios(127)...)
	f := FromSMBIOS(table).Found("SMBIOS")
	if string(f.Token) != "abc" || string(f.Config) != "site: s\n" {
		t.Errorf("%q %q", string(f.Token), f.Config)
	}
}

func TestFromCommandLine(t *testing.T) {
	line := "console=ttyS0 patronus.token=abc patronus.network=" + base64.StdEncoding.EncodeToString([]byte("dns: []")) + " quiet"
	f, err := FromCommandLine(line)
	if err != nil || string(f.Token) != "abc" || string(f.Network) != "dns: []" || f.Config != nil {
		t.Errorf("%+v %v", f, err)
	}
	if _, err := FromCommandLine("patronus.config=%%"); err == nil {
		t.Error("not base64: accepted")
	}
}

func TestOrder(t *testing.T) {
	a, b := Found{Source: "a", Network: []byte("n")}, Found{Source: "b", Token: "t"}
	c := Found{Source: "c", Config: []byte("c"), Network: []byte("other")}
	if got := First(a, b, c); got.Source != "b" || got.Config != nil || string(got.Network) != "n" {
		t.Errorf("%+v", got)
	}
	if got := First(a); !got.Empty() || string(got.Network) != "n" {
		t.Errorf("%+v", got)
	}
	if s := fmt.Sprintf("%v %+v %#v", b, b, b); strings.Contains(s, `"t"`) || strings.Contains(s, ":t ") {
		t.Errorf("a token prints: %s", s)
	}
}

func TestLabel(t *testing.T) {
	iso := make([]byte, LabelSize)
	copy(iso[32769:], "CD001")
	copy(iso[32768+40:], "cidata                          ")
	fat := make([]byte, 512)
	copy(fat[82:], "FAT32   ")
	copy(fat[71:], "CIDATA     ")
	fat[510], fat[511] = 0x55, 0xaa
	for _, c := range []struct {
		head      []byte
		fs, label string
	}{{iso, "iso9660", "cidata"}, {fat, "vfat", "CIDATA"}, {nil, "", ""}, {make([]byte, LabelSize), "", ""}} {
		if fs, label := Label(c.head); fs != c.fs || label != c.label {
			t.Errorf("%q %q, want %q %q", fs, label, c.fs, c.label)
		}
	}
}

func TestParseNetwork(t *testing.T) {
	n, err := ParseNetwork([]byte("interfaces:\n- name: wan0\n  mac: 52:54:00:00:00:01\n  addresses: [192.0.2.2/24]\n  gateways: [192.0.2.1]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if i := n.Find("wan0"); i.UseDHCP() || len(i.Gateways) != 1 {
		t.Errorf("%+v", i)
	}
	if i := n.Find("eth7"); !i.UseDHCP() || i.Name != "eth7" {
		t.Errorf("%+v", i)
	}
	if _, err := ParseNetwork(nil); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"interface: []", "interfaces:\n- {mac: x}", "interfaces:\n- {name: a}\n- {name: a, mtu: 3}", "interfaces:\n- {name: a, addresses: [1.2.3.4]}"} {
		if _, err := ParseNetwork([]byte(bad)); err == nil {
			t.Errorf("%q: accepted", bad)
		}
	}
}

func FuzzSMBIOS(f *testing.F) {
	f.Add(smbios(11, "io.systemd.credential:patronus.token=abc"))
	f.Fuzz(func(_ *testing.T, b []byte) { FromSMBIOS(b); Label(b) })
}

func FuzzNetwork(f *testing.F) {
	f.Add([]byte("interfaces:\n- name: wan0\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = ParseNetwork(b) })
}
