package appliance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"patronus/configs"
)

// A file becomes signed, numbered revisions; a bad one changes nothing.
func TestInstall(t *testing.T) {
	dir := t.TempDir()
	file, data := filepath.Join(dir, "patronus.yaml"), filepath.Join(dir, "data")
	example, err := os.ReadFile("../configs/examples/devices.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(string(example))
	first, err := installConfig(file, data)
	if err != nil || first.Number != 1 {
		t.Fatalf("%+v, %v", first, err)
	}
	if fabric, site, err := readIdentity(data); err != nil || fabric != "acme" || site != "hq" {
		t.Errorf("%s %s %v", fabric, site, err)
	}
	again, err := installConfig(file, data)
	if err != nil || again.Number != 1 {
		t.Errorf("the same file: %+v, %v", again, err)
	}
	if _, n, err := nextRevision(file, data); err != nil || n != 1 {
		t.Errorf("the same file: revision %d, %v", n, err)
	}
	changed := strings.Replace(string(example), "keepalive: 25s", "keepalive: 20s", 1)
	write(changed)
	signed, n, err := nextRevision(file, data)
	if err != nil || n != 2 {
		t.Fatalf("revision %d, %v", n, err)
	}
	root, err := configs.LoadRootPublic(rootPublicFile(data))
	if err != nil {
		t.Fatal(err)
	}
	store, damage, err := configs.OpenStore(edgeDir(data), "acme", "hq", root)
	if err != nil || damage != nil {
		t.Fatal(err, damage)
	}
	if got := store.Current().Number; got != 1 {
		t.Errorf("nextRevision saved %d by itself", got)
	}
	if rev, err := store.Save(signed); err != nil || rev.Number != 2 {
		t.Errorf("%+v, %v", rev, err)
	}
	for name, text := range map[string]string{
		"unknown key":  changed + "colour: red\n",
		"another site": strings.Replace(changed, "site: hq", "site: nowhere", 1),
		"no YAML":      ":\n\t-",
	} {
		write(text)
		if _, _, err := nextRevision(file, data); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	write(strings.Replace(changed, "fabric: acme", "fabric: other", 1))
	if _, err := installConfig(file, data); err == nil {
		t.Error("another fabric moved into the data directory")
	}
}
