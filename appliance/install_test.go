package appliance

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// A site joins a fabric, is configured by its dashboard, and leaves it.
func TestJoinAndLeave(t *testing.T) {
	dir := t.TempDir()
	file, data := filepath.Join(dir, "patronus.yaml"), filepath.Join(dir, "data")
	example, err := os.ReadFile("../configs/examples/devices.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, example, 0o600); err != nil {
		t.Fatal(err)
	}
	root := configs.GenerateRootKey()
	if err := Join(data, root.Public()); err == nil {
		t.Fatal("joined where no appliance is")
	}
	if _, err := installConfig(file, data); err != nil {
		t.Fatal(err)
	}
	for range 2 { // twice is once
		if err := Join(data, root.Public()); err != nil {
			t.Fatal(err)
		}
	}
	if err := Join(data, configs.GenerateRootKey().Public()); !errors.Is(err, ErrJoined) {
		t.Errorf("a second fabric: %v", err)
	}
	own, joined, err := Roots(data)
	if err != nil || !joined.Equal(root.Public()) || own.Equal(joined) {
		t.Fatalf("roots %v, %v, %v", own, joined, err)
	}

	// Joining by itself changes nothing: the file still counts.
	text := strings.Replace(string(example), "keepalive: 25s", "keepalive: 20s", 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if rev, err := installConfig(file, data); err != nil || rev.Number != 2 || rev.Controller != nil {
		t.Fatalf("%+v, %v", rev, err)
	}

	key := configs.GenerateRootKey()
	certificate, err := root.Certify(configs.Controller{Fabric: "acme", Site: "hq", Term: 7, Key: key.Public(), IssuedAt: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := readConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	rev, err := configs.NewRevision(cfg, 7, 1, time.Now(), [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := rev.SignDelegated(key, certificate)
	if err != nil {
		t.Fatal(err)
	}
	open := func() *configs.Store {
		t.Helper()
		roots, err := readableRoots(data)
		if err != nil {
			t.Fatal(err)
		}
		store, damage, err := configs.OpenStore(edgeDir(data), "acme", "hq", roots...)
		if err != nil || damage != nil {
			t.Fatal(err, damage)
		}
		return store
	}
	if _, err := open().Save(signed); err != nil {
		t.Fatal(err)
	}
	if _, _, err := nextRevision(file, data); err == nil || !strings.Contains(err.Error(), "dashboard at hq") {
		t.Errorf("the file of a managed site: %v", err)
	}
	if rev, err := installConfig(file, data); err != nil || rev.Epoch != 7 {
		t.Errorf("a managed site starts with %+v, %v", rev, err)
	}

	for range 2 {
		if err := Leave(data); err != nil {
			t.Fatal(err)
		}
	}
	if cur := open().Current(); cur == nil || cur.Epoch != 7 {
		t.Fatalf("after it left: %+v", cur)
	}
	if _, joined, err := Roots(data); err != nil || joined != nil {
		t.Errorf("still joined to %v, %v", joined, err)
	}
	if err := os.WriteFile(file, example, 0o600); err != nil {
		t.Fatal(err)
	}
	if rev, err := installConfig(file, data); err != nil || rev.Controller != nil || rev.Epoch != 7 || rev.Number != 2 {
		t.Errorf("its file again: %+v, %v", rev, err)
	}
}
