package pid1

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"patronus/image/slot"
)

const index = `m virtio 
m virtio_net virtio,failover
a virtio_net virtio:d00000001v*
m failover 
m vfat fat
a vfat fs-vfat
m fat 
m e1000e 
a e1000e pci:v00008086d000010D3sv*sd*bc*sc*i*
m broken missing
`

func TestModules(t *testing.T) {
	var loaded []string
	m := parseModules([]byte(index), func(name string) error {
		loaded = append(loaded, name)
		if name == "fat" {
			return unix.EEXIST
		}
		return nil
	})
	m.addFor("virtio:d00000001v00001AF4")
	m.addFor("fs-vfat")
	m.addFor("virtio_net")
	if want := []string{"virtio", "failover", "virtio_net", "fat", "vfat"}; !slices.Equal(loaded, want) {
		t.Errorf("loaded %v, want %v", loaded, want)
	}
	for modalias, want := range map[string]string{
		"pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00": "e1000e",
		"pci:v00008086d000010D4sv00008086sd00000000bc02sc00i00": "",
		"e1000e": "e1000e", "no-such": "", "virtio-net": "virtio_net",
	} {
		if got := strings.Join(m.find(modalias), ","); got != want {
			t.Errorf("%s: %q, want %q", modalias, got, want)
		}
	}
	if m.add("broken") == nil || m.add("absent") == nil {
		t.Error("a module that is not there: no error")
	}
}

func TestFloor(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	for _, c := range []struct{ now, epoch, kept, want int64 }{
		{200, 100, 150, 200}, // a clock that goes
		{0, 100, 50, 100},    // no battery, first boot
		{0, 100, 150, 150},   // no battery
		{120, 100, 150, 150}, // set back
	} {
		if got := floor(at(c.now), c.epoch, at(c.kept)); !got.Equal(at(c.want)) {
			t.Errorf("%+v: %d", c, got.Unix())
		}
	}
}

func TestRing(t *testing.T) {
	r := newRing(100)
	for i := range 100 {
		fmt.Fprintf(r, "line %d\n", i)
	}
	if got := string(r.last(2)); got != "line 98\nline 99\n" {
		t.Errorf("%q", got)
	}
	if got := r.last(1000); len(got) > 200 || !strings.HasPrefix(string(got), "line ") {
		t.Errorf("%d bytes kept, from %.10q", len(got), got)
	}
	if got := newRing(10).last(5); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

func TestButton(t *testing.T) {
	event := make([]byte, 24)
	event[16], event[18], event[20] = 1, keyPower, 1
	if !pressed(event) {
		t.Error("pressed is not seen")
	}
	event[20] = 0
	if pressed(event) {
		t.Error("released is taken for pressed")
	}
}

func TestPage(t *testing.T) {
	blank := Facts{Booted: true, Version: "v1.0", Seq: 5, Arch: "amd64", Interfaces: []Interface{
		{Name: "eth0", MAC: "52:54:00:00:00:01", Carrier: true, Addresses: []string{"192.0.2.5/24", "fe80::1/64"}, Key: "KEY0="},
		{Name: "eth1", MAC: "52:54:00:00:00:02", Key: "KEY1="},
	}}
	joined := blank
	joined.Configured = true
	joined.Gateway, joined.Running = Status{Fabric: "acme", Site: "hq", Revision: 3, Paths: 4, PathsUp: 2}, true
	joined.Failed = &slot.Failure{Seq: 6, Version: "v1.1", Why: "no path came up within 5m0s"}
	joined.Trial, joined.TrialState = true, "healthy, being watched"
	joined.Problems = []string{"DHCP on eth0: no answer"}
	for name, f := range map[string]Facts{"blank": blank, "joined": joined} {
		want, err := os.ReadFile("testdata/" + name + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), Page(f)); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
}

func TestRoles(t *testing.T) {
	for _, c := range []struct {
		args     []string
		modprobe bool
	}{{[]string{"/sbin/modprobe", "-q", "--", "fs-vfat"}, true}, {[]string{"/init"}, false}, {[]string{"patronus", "run"}, false}, {nil, false}} {
		if IsModprobe(c.args) != c.modprobe || Wanted(c.args) {
			t.Errorf("%v is mistaken", c.args)
		}
	}
}

func TestExpect(t *testing.T) {
	if got := Expect(Status{PathsUp: 2}, nil); got != (slot.Expectation{Configured: true, Paths: true}) {
		t.Errorf("%+v", got)
	}
	if got := Expect(Status{PathsUp: 2, Dashboard: true}, os.ErrNotExist); got != (slot.Expectation{}) {
		t.Errorf("nothing runs: %+v", got)
	}
}

func TestRunArguments(t *testing.T) {
	dir := t.TempDir()
	config, token, enrolled := filepath.Join(dir, "c"), filepath.Join(dir, "t"), filepath.Join(dir, "e")
	touch := func(file string) {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct{ file, want string }{{"", ""}, {token, "--token-file"}, {enrolled, "--token-file"}, {config, "--config"}} {
		if step.file != "" {
			touch(step.file)
		}
		got := ""
		if args := runArguments(config, token, enrolled); args != nil {
			got = args[0]
		}
		if got != step.want {
			t.Errorf("with %q: %q, want %q", step.file, got, step.want)
		}
	}
}
