package board

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	ws "github.com/fasthttp/websocket"

	"patronus/appliance"
	"patronus/appliance/lab"
	"patronus/dashboard"
	"patronus/e2e/vnet"
)

const password = "correct horse battery staple"

// board is a lab of three sites with hq's dashboard, and an administrator.
type board struct {
	t      *testing.T
	fabric *lab.Fabric
	base   string
	print  string // of the certificate
	token  string
	client http.Client
}

func start(t *testing.T) *board {
	t.Helper()
	infos := make(chan appliance.BoardInfo, 1)
	f, err := lab.New(lab.Options{Sites: 3, Seed: 1, Dir: t.TempDir(), Board: func(_, dir string) appliance.BoardOptions {
		return appliance.BoardOptions{Dir: dir, Listen: []string{"127.0.0.1:0"}, Started: func(i appliance.BoardInfo) { infos <- i }}
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	b := &board{t: t, fabric: f, client: http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		// The certificate is the dashboard's own, made a moment ago.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}}
	b.until("hq is promoted", func() bool { return f.Sites[0].Promote(t.Context(), true) == nil })
	select {
	case i := <-infos:
		b.base, b.print = "https://"+i.Addresses[0].String(), i.Fingerprint
		b.setUp(i.SetupCode)
	case <-time.After(60 * time.Second):
		t.Fatal("no dashboard")
	}
	return b
}

// setUp makes the first administrator as a person does, and signs in.
func (b *board) setUp(code string) {
	b.t.Helper()
	b.call(http.MethodPost, "/api/v1/setup", map[string]string{"code": "WRONG", "username": "admin", "password": password}, nil, http.StatusForbidden, http.StatusUnauthorized)
	b.call(http.MethodPost, "/api/v1/setup", map[string]string{"code": code, "username": "admin", "password": password}, nil, http.StatusCreated)
	var grant struct {
		Token string `json:"token"`
	}
	b.call(http.MethodPost, "/api/v1/auth/login", map[string]string{"username": "admin", "password": password}, &grant, http.StatusOK)
	b.token = grant.Token
}

// call asks the API, and fails the test if the status is none of those wanted.
func (b *board) call(method, path string, body, out any, want ...int) {
	b.t.Helper()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			b.t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.base+path, bytes.NewReader(text))
	if err != nil {
		b.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if b.token != "" {
		req.Header.Set("Authorization", "Bearer "+b.token)
	}
	resp, err := b.client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, w := range want {
		if resp.StatusCode == w {
			if out != nil {
				if err := json.Unmarshal(answer, out); err != nil {
					b.t.Fatalf("%s %s: %v: %s", method, path, err, answer)
				}
			}
			return
		}
	}
	b.t.Fatalf("%s %s: %s, want %v: %s", method, path, resp.Status, want, answer)
}

// until polls cond. It asks seldom: the API counts requests.
func (b *board) until(what string, cond func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			b.t.Fatal("timeout: ", what)
		}
		<-time.After(1500 * time.Millisecond)
	}
}

type list[T any] struct {
	Items []T `json:"items"`
}

// events follows /ws/events, and gives those of a type to the channel.
func (b *board) events(kind string) <-chan map[string]any {
	b.t.Helper()
	d := ws.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, HandshakeTimeout: 10 * time.Second}
	conn, resp, err := d.DialContext(b.t.Context(), "wss"+strings.TrimPrefix(b.base, "https")+"/ws/events", http.Header{"Authorization": {"Bearer " + b.token}})
	if err != nil {
		b.t.Fatalf("%v: %+v", err, resp)
	}
	resp.Body.Close()
	out := make(chan map[string]any, 100)
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			var m map[string]any
			if conn.ReadJSON(&m) != nil {
				return
			}
			if m["type"] == kind {
				select {
				case out <- m:
				default:
				}
			}
		}
	})
	b.t.Cleanup(func() {
		conn.Close()
		reading.Wait()
	})
	return out
}

const noTelnet = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web-only, namespace: shop}
spec:
  podSelector: {matchLabels: {app: till}}
  policyTypes: [Ingress]
  ingress:
  - ports: [{protocol: TCP, port: 7}]
`

// TestStory is the life of a policy: made by the API, enforced on packets at the
// sites, seen where people look.
func TestStory(t *testing.T) {
	b := start(t)
	hq, east := b.fabric.Sites[0], b.fabric.Sites[1]
	var sites list[dashboard.Site]
	defer func() {
		if t.Failed() {
			t.Logf("sites: %+v", sites.Items)
		}
	}()
	b.until("all sites configured", func() bool {
		sites = list[dashboard.Site]{}
		b.call(http.MethodGet, "/api/v1/sites", nil, &sites, http.StatusOK)
		up := 0
		for _, s := range sites.Items {
			if (s.Status == "up" || s.Status == "degraded") && s.InSync && s.Paths.Down == 0 && s.Version == appliance.Version {
				up++
			}
		}
		return up == 3
	})
	var paths list[dashboard.Path]
	b.call(http.MethodGet, "/api/v1/paths", nil, &paths, http.StatusOK)
	if len(paths.Items) != 24 {
		t.Errorf("%d paths, want 24: 3 sites, 2 uplinks each, seen from both ends", len(paths.Items))
	}

	// Before the policy both services answer.
	serve := func(port uint16) {
		l, err := east.Host.ListenTCP(netip.AddrPortFrom(east.Addr4, port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
			}
		}()
	}
	serve(7)
	serve(23)
	reaches := func(port uint16) bool {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		c, err := hq.Host.DialTCP(ctx, netip.AddrPortFrom(east.Addr4, port))
		if err != nil {
			return false
		}
		c.Close()
		return true
	}
	for _, port := range []uint16{7, 23} {
		b.until(fmt.Sprint("port ", port), func() bool { return reaches(port) })
	}

	blocks := b.events("policy_block")
	b.call(http.MethodPost, "/api/v1/endpoints", map[string]any{
		"namespace": "shop", "name": "till1", "site": "east", "addresses": []string{east.Addr4.String() + "/32"}, "labels": map[string]string{"app": "till"},
	}, nil, http.StatusAccepted)
	var accepted struct {
		Revision uint64 `json:"revision"`
	}
	b.call(http.MethodPost, "/api/v1/policies", map[string]any{"spec": noTelnet}, &accepted, http.StatusAccepted)
	var rev dashboard.RevisionStatus
	defer func() {
		if t.Failed() {
			t.Logf("revision: %+v", rev)
		}
	}()
	b.until("the revision is applied by all sites", func() bool {
		rev = dashboard.RevisionStatus{}
		b.call(http.MethodGet, fmt.Sprintf("/api/v1/revisions/%d", accepted.Revision), nil, &rev, http.StatusOK)
		return rev.Applied == 3
	})
	for _, s := range b.fabric.Sites {
		st, err := s.Client.Status(t.Context())
		if err != nil || len(st.Policies) != 1 || st.Policies[0].Policy != "NetworkPolicy/shop/web-only" {
			t.Errorf("%s enforces %+v, %v", s.Name, st.Policies, err)
		}
	}
	if reaches(23) {
		t.Error("port 23 is open still")
	}
	if !reaches(7) {
		t.Error("port 7 is closed")
	}

	// The block is told as it happens, ...
	select {
	case m := <-blocks:
		flow, _ := m["flow"].(map[string]any)
		if m["policy_name"] != "web-only" || m["policy_id"] != "shop~web-only" || flow["dst"] != east.Addr4.String() || flow["port"] != 23.0 {
			t.Errorf("%v", m)
		}
	case <-time.After(60 * time.Second):
		t.Error("no policy_block on /ws/events")
	}
	// ... and found where one looks later.
	b.until("the blocked flow in /flows", func() bool {
		var flows list[dashboard.Flow]
		b.call(http.MethodGet, "/api/v1/flows?status=blocked&port=23", nil, &flows, http.StatusOK)
		return len(flows.Items) > 0 && flows.Items[0].Policy == "NetworkPolicy/shop/web-only" && flows.Items[0].Decision != nil
	})
	b.until("the policy's blocks", func() bool {
		var p dashboard.Policy
		b.call(http.MethodGet, "/api/v1/policies/shop~web-only", nil, &p, http.StatusOK)
		return p.AppliesTo == 1 && p.BlocksLastHour != nil && *p.BlocksLastHour > 0
	})
	var audit list[struct {
		Action     string `json:"action"`
		ResourceID string `json:"resource_id"`
		User       string `json:"user_id"`
	}]
	b.call(http.MethodGet, "/api/v1/audit", nil, &audit, http.StatusOK)
	told := false
	for _, a := range audit.Items {
		told = told || a.Action == "create_policy" && a.ResourceID == "shop~web-only" && a.User == "admin"
	}
	if !told {
		t.Errorf("not in the audit log: %+v", audit.Items)
	}

	// Explained by the code that decides.
	var x dashboard.Explained
	b.call(http.MethodPost, "/api/v1/explain", map[string]any{"from": hq.Addr4, "to": east.Addr4, "port": 23}, &x, http.StatusOK)
	if !bytes.Contains(x.Explanation, []byte("web-only")) {
		t.Errorf("explained by %s", x.Explanation)
	}
	// And taken back.
	b.call(http.MethodDelete, "/api/v1/policies/shop~web-only", nil, nil, http.StatusAccepted)
	b.until("port 23 is open again", func() bool { return reaches(23) })
}

// TestHistoryOfAll sees that the dashboard collects what other sites measured,
// and goes on when it is killed.
func TestHistoryOfAll(t *testing.T) {
	b := start(t)
	hq, east := b.fabric.Sites[0], b.fabric.Sites[1]
	at := netip.AddrPortFrom(east.Addr4, 5060)
	sink, err := east.Host.SinkUDP(at)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	calls.Go(func() { _ = sink.Run(ctx) })
	calls.Go(func() { _, _ = hq.Host.SendUDP(ctx, at, vnet.UDPLoad{Rate: 64_000, Size: 160}) })
	defer calls.Wait()
	defer stop()
	measured := func(site string) (points int) {
		var series dashboard.TimeSeries
		b.call(http.MethodGet, "/api/v1/metrics/timeseries?metric=latency&duration=5m&site="+site, nil, &series, http.StatusOK)
		for _, m := range series.Metrics {
			for _, s := range m.Series {
				points += len(s.Points)
			}
		}
		return points
	}
	for _, site := range []string{"hq", "east", "west"} {
		b.until("history of "+site, func() bool { return measured(site) > 0 })
	}
	before := sink.Report().Received
	hq.KillNode()
	hq.ReviveNode()
	b.until("the call goes on", func() bool { return sink.Report().Received > before+20 })
}
