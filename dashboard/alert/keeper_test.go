package alert

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"patronus/appliance/ledger"
	"patronus/configs"
)

// receiver is a web server with TLS that keeps what it gets.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	got    []received
}

type received struct {
	header http.Header
	body   []byte
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{status: 202}
	r.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got = append(r.got, received{q.Header, body})
		w.WriteHeader(r.status)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) set(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *receiver) take() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}

func (r *receiver) authority() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw}))
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// desk is a keeper with a clock and facts that a test sets.
type desk struct {
	*Keeper
	t      *testing.T
	dir    string
	ledger *ledger.Ledger
	alerts *configs.Alerts
	now    time.Time
	down   map[string]float64
	told   []string
	log    strings.Builder
}

func newDesk(t *testing.T, alerts *configs.Alerts) *desk {
	d := &desk{t: t, dir: t.TempDir(), alerts: alerts, now: start, down: map[string]float64{}}
	d.open()
	t.Cleanup(func() {
		if err := d.ledger.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *desk) open() {
	l, err := ledger.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	d.ledger = l
	d.Keeper, err = Open(d.t.Context(), Options{
		Ledger: l, Now: func() time.Time { return d.now }, Alerts: func() *configs.Alerts { return d.alerts },
		Log: slog.New(slog.NewTextHandler(&d.log, nil)),
		Facts: func(now time.Time) *Facts {
			f := &Facts{At: now}
			for id, v := range d.down {
				f.Paths = append(f.Paths, PathFact{ID: id, Site: "a", Down: v})
			}
			return f
		},
		Tell: func(_ context.Context, a *Alert) error { d.told = append(d.told, a.State+" "+a.Target); return nil },
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) restart() {
	if err := d.ledger.Close(); err != nil {
		d.t.Fatal(err)
	}
	d.open()
}

func (d *desk) pass(by time.Duration) {
	d.t.Helper()
	for end := d.now.Add(by); d.now.Before(end); {
		d.now = d.now.Add(2 * time.Second)
		if err := d.Tick(d.t.Context()); err != nil {
			d.t.Fatal(err)
		}
		if err := d.Flush(d.t.Context()); err != nil {
			d.t.Fatal(err)
		}
	}
}

func downRule() []configs.AlertRule {
	return []configs.AlertRule{{ID: "down", Name: "Down", Severity: configs.Critical, Condition: configs.AlertCondition{Type: configs.PathDown, Duration: configs.Duration(4 * time.Second)}, ClearFor: configs.Duration(4 * time.Second)}}
}

// Two paths that go down together are one signed message, sent again until it
// is taken, across a restart; then comes one that they are over.
func TestWebhookIsSignedGroupedAndSentAgain(t *testing.T) {
	r := newReceiver(t)
	d := newDesk(t, &configs.Alerts{Private: loopback, Rules: downRule(), Channels: []configs.AlertChannel{{Name: "hook", Kind: configs.Webhook, URL: r.URL + "/x", Authority: r.authority()}}})
	if err := d.SetSecret(t.Context(), "hook", "s3cret"); err != nil {
		t.Fatal(err)
	}
	r.set(503)
	d.down["p1"], d.down["p2"] = 1, 1
	d.pass(20 * time.Second)
	if got := r.take(); len(got) != 1 {
		t.Fatalf("%d messages", len(got))
	}
	d.restart()
	r.set(200)
	d.pass(30 * time.Second)
	got := r.take()
	if len(got) != 1 {
		t.Fatalf("%d messages after the restart", len(got))
	}
	mac := hmac.New(sha256.New, []byte("s3cret"))
	mac.Write([]byte(got[0].header.Get(HeaderTimestamp) + "."))
	mac.Write(got[0].body)
	if want := "sha256=" + hex.EncodeToString(mac.Sum(nil)); got[0].header.Get(HeaderSignature) != want {
		t.Error("the signature does not fit")
	}
	var body webhookBody
	if err := json.Unmarshal(got[0].body, &body); err != nil || len(body.Alerts) != 2 {
		t.Fatalf("%v %s", err, got[0].body)
	}
	d.down["p1"], d.down["p2"] = 0, 0
	d.pass(30 * time.Second)
	if got = r.take(); len(got) != 1 || !strings.Contains(string(got[0].body), "0 firing, 2 resolved") {
		t.Errorf("%d messages of the end", len(got))
	}
	if len(d.Firing()) != 0 || len(d.Ended()) != 2 || len(d.told) != 4 {
		t.Errorf("firing %v, ended %d, told %v", d.Firing(), len(d.Ended()), d.told)
	}
	log := d.Deliveries()
	if len(log) != 2 || log[1].State != Sent || log[1].Attempts != 2 {
		t.Errorf("%+v", log)
	}
}

func TestSlackAndPagerDuty(t *testing.T) {
	r := newReceiver(t)
	d := newDesk(t, &configs.Alerts{Private: loopback, Rules: downRule(), Channels: []configs.AlertChannel{
		{Name: "chat", Kind: configs.Slack, Authority: r.authority()},
		{Name: "pager", Kind: configs.PagerDuty, URL: r.URL + "/v2/enqueue", Authority: r.authority()},
	}})
	for name, secret := range map[string]string{"chat": r.URL + "/services/T/B/x", "pager": "routing-key"} {
		if err := d.SetSecret(t.Context(), name, secret); err != nil {
			t.Fatal(err)
		}
	}
	d.down["p1"] = 1
	d.pass(20 * time.Second)
	var slack, pager map[string]any
	for _, got := range r.take() {
		var m map[string]any
		if err := json.Unmarshal(got.body, &m); err != nil {
			t.Fatal(err)
		}
		if m["routing_key"] != nil {
			pager = m
		} else {
			slack = m
		}
	}
	if text, _ := slack["text"].(string); !strings.Contains(text, "Path p1 is down") {
		t.Errorf("%v", slack)
	}
	id := d.Firing()[0].ID
	if pager["event_action"] != "trigger" || pager["routing_key"] != "routing-key" || pager["dedup_key"] != id {
		t.Errorf("%v", pager)
	}
	d.down["p1"] = 0
	d.pass(30 * time.Second)
	resolved := false
	for _, got := range r.take() {
		resolved = resolved || strings.Contains(string(got.body), `"resolve"`) && strings.Contains(string(got.body), id)
	}
	if !resolved {
		t.Error("PagerDuty was not told of the end")
	}
}

// A private address is dialled only if the configuration names its network,
// and no secret is in an error or the log.
func TestGuardAndSecrets(t *testing.T) {
	r := newReceiver(t)
	secret := r.URL + "/services/T/B/topsecret"
	d := newDesk(t, &configs.Alerts{Rules: downRule(), Channels: []configs.AlertChannel{{Name: "chat", Kind: configs.Slack, Authority: r.authority()}}})
	if err := d.SetSecret(t.Context(), "chat", secret); err != nil {
		t.Fatal(err)
	}
	m, err := d.Test(t.Context(), "chat")
	if err != nil || m.State != Failed || !strings.Contains(m.Error, "not allowed") || len(r.take()) != 0 {
		t.Errorf("%v %+v", err, m)
	}
	d.alerts.Private = loopback
	r.set(302)
	if m, err = d.Test(t.Context(), "chat"); err != nil || m.State != Failed || len(r.take()) != 1 {
		t.Errorf("a redirect was followed, or taken for success: %v %+v", err, m)
	}
	r.set(200)
	if m, err = d.Test(t.Context(), "chat"); err != nil || m.State != Sent {
		t.Errorf("%v %+v", err, m)
	}
	text, err := json.Marshal(d.Deliveries())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text)+d.log.String(), "topsecret") {
		t.Error("the secret is in the log")
	}
}

// Who is muted or taken calls nobody; when the mute ends it does.
func TestMutesAndAcknowledgement(t *testing.T) {
	r := newReceiver(t)
	d := newDesk(t, &configs.Alerts{Private: loopback, Rules: downRule(), Channels: []configs.AlertChannel{{Name: "hook", Kind: configs.Webhook, URL: r.URL, Authority: r.authority()}}})
	if err := d.SetSecret(t.Context(), "hook", "s"); err != nil {
		t.Fatal(err)
	}
	m, err := d.AddMute(t.Context(), Mute{Kind: Silence, Target: "p1", From: d.now, Until: d.now.Add(time.Hour), Comment: "known", By: "eve"}, ledger.AuditRecord{User: "eve", Action: "create_silence", Outcome: "ok"})
	if err != nil {
		t.Fatal(err)
	}
	d.down["p1"] = 1
	d.pass(30 * time.Second)
	if got := r.take(); len(got) != 0 || d.Firing()[0].Muted != m.ID {
		t.Fatalf("%d messages, %+v", len(got), d.Firing())
	}
	d.restart()
	if _, err := d.EndMute(t.Context(), Silence, m.ID, ledger.AuditRecord{User: "eve", Action: "end_silence", Outcome: "ok"}); err != nil {
		t.Fatal(err)
	}
	d.pass(14 * time.Second)
	if got := r.take(); len(got) != 1 {
		t.Fatalf("%d messages after the silence", len(got))
	}
	if _, err := d.Acknowledge(t.Context(), d.Firing()[0].ID, Ack{By: "eve", At: d.now}); err != nil {
		t.Fatal(err)
	}
	d.restart()
	if a := d.Firing()[0]; a.Acked == nil || a.Acked.By != "eve" {
		t.Errorf("%+v", a)
	}
	if _, err := d.Acknowledge(t.Context(), "nothing", Ack{}); err == nil {
		t.Error("an alert that is not there was acknowledged")
	}
}

// A fresh keeper takes over what another dashboard left firing.
func TestInherit(t *testing.T) {
	l, err := ledger.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	old := Alert{ID: "a1", Rule: "down", Target: "p1", State: Firing, Severity: configs.Critical, Since: start, FiredAt: start}
	o := Options{Ledger: l, Past: func(context.Context) ([]Alert, error) { return []Alert{old}, nil }}
	for range 2 {
		k, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if got := k.Firing(); len(got) != 1 || got[0].ID != "a1" {
			t.Fatalf("%+v", got)
		}
	}
}
