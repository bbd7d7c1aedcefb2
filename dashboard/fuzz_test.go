package dashboard

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	ws "github.com/fasthttp/websocket"
)

func FuzzBody(f *testing.F) {
	for _, s := range []string{`{"spec":"a","mode":"staged"}`, `{"spec":1}`, `{"a":[[[]]]}`, `{"spec":"a","spec":"b"}`, "", "null", `"\ud800"`, strings.Repeat("[", 200)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, v := range []any{&PolicyBody{}, &SiteBody{}, &RoutingBody{}, &EndpointBody{}, &Question{}, &TokenBody{}, &RoleBody{}} {
			err := decode(text, v)
			if err == nil {
				continue
			}
			if p, known := problemOf(err); !known || p.Status < 400 || p.Status >= 500 {
				t.Errorf("%q into %T: %v", text, v, err)
			}
		}
	})
}

func FuzzSubscribe(f *testing.F) {
	f.Add([]byte(`{"type":"subscribe","sites":["a"],"batch":true}`))
	f.Add([]byte(`{"type":"subscribe"`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseSubscribe(ws.TextMessage, text)
		if err == nil && m.Type != "subscribe" || err != nil && !errors.Is(err, errMessage) {
			t.Errorf("%q: %+v, %v", text, m, err)
		}
	})
}

func FuzzQuery(f *testing.F) {
	for _, s := range []string{"1h", "7d", "15m", "-1s", "99999999999d", "1.5h", "10.0.0.1", "10.0.0.0/8", "::1%eth0", "namespace~name", "~name"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := parseSpan(s); err == nil && (d <= 0 || d.Hours() > 366*24) {
			t.Errorf("parseSpan(%q) = %v", s, d)
		}
		var p Prefix
		if p.UnmarshalText([]byte(s)) == nil && (!p.IsValid() || p.Addr().Zone() != "") {
			t.Errorf("prefix %q = %v", s, p)
		}
		if long := longPolicyID(s); long != "" && strings.Count(long, "/") < 2 {
			t.Errorf("longPolicyID(%q) = %q", s, long)
		}
		if got := harmless(s); got != "" && strings.ContainsRune("=+-@\t\r\n", rune(got[0])) {
			t.Errorf("harmless(%q) = %q", s, got)
		}
		if got := plain(s); strings.ContainsAny(got, "\r\n\x1b") {
			t.Errorf("plain(%q) = %q", s, got)
		}
	})
}

func FuzzCursor(f *testing.F) {
	c := newCollection(func() []Ref {
		return []Ref{{"a", "3"}, {"b", "1"}, {"c", "2"}, {"d", "2"}}
	}, func(r *Ref) string { return r.ID })
	f.Add("Yg")
	f.Add(base64.RawURLEncoding.EncodeToString([]byte("zz\nq")))
	f.Fuzz(func(t *testing.T, cursor string) {
		byID := func(a, b *Ref) int { return strings.Compare(a.ID, b.ID) }
		at, err := after(c, []int{0, 1, 2, 3}, cursor, byID, nil)
		if err != nil {
			if p, known := problemOf(err); !known || p.Status != 422 {
				t.Errorf("%q: %v", cursor, err)
			}
			return
		}
		mark, _ := base64.RawURLEncoding.DecodeString(cursor)
		id, _, _ := strings.Cut(string(mark), "\n")
		for _, i := range at {
			if c.list()[i].ID < id {
				t.Errorf("cursor %q goes back to %s", cursor, c.list()[i].ID)
			}
		}
	})
}
