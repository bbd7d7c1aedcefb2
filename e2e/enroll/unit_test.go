package enroll

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"golang.zx2c4.com/wireguard/conn"

	"patronus/appliance"
	"patronus/configs"
	"patronus/e2e/vnet"
	"patronus/netstack/lan"
	"patronus/netstack/tunnel"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Both sleep for seconds before they look whether their server has ended.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

// machine opens an appliance's uplinks on loopback, its LAN on a cable and its
// keys from their files. It implements netstack.Opener.
type machine struct{ cable lan.Port }

func (m *machine) OpenBind(u *configs.Uplink) (conn.Bind, error) {
	return tunnel.NewUDP(tunnel.UDPOptions{Sources: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, Port: u.ListenPort, BatchSize: 8})
}

func (m *machine) OpenPort(*configs.LANPort, func([]byte), lan.Resolver) (lan.Port, error) {
	return m.cable, nil
}

func (m *machine) PrivateKey(u *configs.Uplink) (configs.PrivateKey, error) {
	return configs.LoadPrivateKey(u.PrivateKeyFile)
}

// confirmWithin is shorter than the product's: a rollback is waited for.
const confirmWithin = 6 * time.Second

// unit is an appliance over the state directory that it would run from.
type unit struct {
	dir   string
	name  string
	edge  *appliance.EdgeClient
	node  *appliance.NodeClient
	host  *vnet.Host
	infos chan appliance.BoardInfo
}

// start runs the appliance of a directory, with a host behind it, until the test
// ends.
func start(t *testing.T, dir, fabric, site string, host netip.Addr) *unit {
	t.Helper()
	own, joined, err := appliance.Roots(dir)
	if err != nil {
		t.Fatal(err)
	}
	roots := []ed25519.PublicKey{own}
	if joined != nil {
		roots = append(roots, joined)
	}
	store, damage, err := configs.OpenStore(filepath.Join(dir, "edge"), fabric, site, roots...)
	if err != nil || damage != nil {
		t.Fatal(err, damage)
	}
	near, far := lan.NewCable(lan.CableOptions{Name: site + ".lan"})
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("site", site)
	}
	u := &unit{dir: dir, name: site, infos: make(chan appliance.BoardInfo, 1)}
	edge, err := appliance.NewEdge(appliance.EdgeOptions{Opener: &machine{near}, Store: store, Logger: log, Batch: 8, SigningKey: own, ConfirmWithin: confirmWithin})
	if err != nil {
		t.Fatal(err)
	}
	if u.host, err = vnet.NewHost(vnet.HostOptions{Name: site, Port: far, Addrs: []netip.Addr{host}}); err != nil {
		t.Fatal(err)
	}
	if err := edge.Reload(); err != nil {
		t.Fatal(err)
	}
	run, err := os.MkdirTemp("", "patronus-")
	if err != nil {
		t.Fatal(err)
	}
	edgeSocket, nodeSocket := filepath.Join(run, "e"), filepath.Join(run, "n")
	listen := func(path string) net.Listener {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	edgeListener, nodeListener := listen(edgeSocket), listen(nodeSocket)
	u.edge, u.node = appliance.NewEdgeClient(edgeSocket), appliance.NewNodeClient(nodeSocket)
	nodeDir := filepath.Join(dir, "node")
	if err := os.MkdirAll(nodeDir, 0o700); err != nil {
		t.Fatal(err)
	}
	board := appliance.NewBoard(appliance.BoardOptions{Dir: nodeDir, Listen: []string{"127.0.0.1:0"}, Logger: log, Started: func(i appliance.BoardInfo) { u.infos <- i }})
	node := appliance.NewNode(appliance.NodeOptions{Edge: u.edge, Dir: nodeDir, Logger: log, Dashboard: board.Run})
	ctx, cancel := context.WithCancel(context.Background())
	var group errgroup.Group
	for _, f := range []func(context.Context) error{
		func(ctx context.Context) error { return edge.Run(ctx, edgeListener) },
		func(ctx context.Context) error { return node.Run(ctx, nodeListener) },
		u.host.Run,
	} {
		group.Go(func() error { return f(ctx) })
	}
	t.Cleanup(func() {
		cancel()
		_ = group.Wait() // all of them end by ctx
		u.edge.Close()
		u.node.Close()
		_ = os.RemoveAll(run)
	})
	return u
}

// freePort is a UDP port of loopback that was free a moment ago.
func freePort(t *testing.T) uint16 {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// headquarters is a standalone site that was promoted, with an administrator.
type headquarters struct {
	*unit
	t      *testing.T
	base   string
	token  string
	client http.Client
}

const password = "correct horse battery staple"

func newHeadquarters(t *testing.T) *headquarters {
	t.Helper()
	dir := t.TempDir()
	key := configs.GenerateKey()
	keyFile := filepath.Join(dir, "wan0.key")
	if err := key.WriteFile(keyFile); err != nil {
		t.Fatal(err)
	}
	cfg, err := configs.New(configs.Config{
		Fabric: "acme", Site: "hq", DataDir: dir,
		Sites: []configs.Site{{
			Name: "hq", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
			Uplinks: []configs.Uplink{{
				Name: "wan0", PublicKey: key.Public(), PrivateKeyFile: keyFile,
				Endpoints: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), freePort(t))},
			}},
		}},
		LAN: []configs.LANPort{{Name: "lan0", Kind: configs.LANCable, Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24")}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	root, _, err := configs.LoadOrCreateRootKey(appliance.SigningKeyFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := configs.WriteRootPublic(filepath.Join(dir, "edge", "root.pub"), root.Public()); err != nil {
		t.Fatal(err)
	}
	store, _, err := configs.OpenStore(filepath.Join(dir, "edge"), "acme", "hq", root.Public())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Issue(cfg, root, time.Now()); err != nil {
		t.Fatal(err)
	}
	hq := &headquarters{t: t, unit: start(t, dir, "acme", "hq", netip.MustParseAddr("10.1.0.10"))}
	hq.client = http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // its own certificate, made a moment ago
	}}
	until(t, "hq is promoted", 30*time.Second, func() bool {
		_, err := appliance.Promote(t.Context(), hq.node, root, true)
		return err == nil
	})
	select {
	case i := <-hq.infos:
		hq.base = "https://" + i.Addresses[0].String()
		hq.call("POST", "/api/v1/setup", map[string]string{"code": i.SetupCode, "username": "admin", "password": password}, nil, 201)
		var grant struct {
			Token string `json:"token"`
		}
		hq.call("POST", "/api/v1/auth/login", map[string]string{"username": "admin", "password": password}, &grant, 200)
		hq.token = grant.Token
	case <-time.After(60 * time.Second):
		t.Fatal("no dashboard")
	}
	return hq
}

// call asks the API, and fails the test if the status is another one.
func (h *headquarters) call(method, path string, body, out any, want int) {
	h.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		h.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(h.t.Context(), method, h.base+path, bytes.NewReader(text))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if h.token != "" {
		req.Header.Set("Authorization", "Bearer "+h.token)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	if resp.StatusCode != want {
		h.t.Fatalf("%s %s: %s, want %d: %s", method, path, resp.Status, want, answer)
	}
	if out != nil {
		if err := json.Unmarshal(answer, out); err != nil {
			h.t.Fatalf("%s %s: %v: %s", method, path, err, answer)
		}
	}
}

// until polls cond, and fails the test when patience is over.
func until(t *testing.T, what string, patience time.Duration, cond func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	over := time.NewTimer(patience)
	defer over.Stop()
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	for !cond() {
		select {
		case <-over.C:
			t.Fatal("timeout: ", what)
		case <-look.C:
		}
	}
	return time.Since(began)
}
