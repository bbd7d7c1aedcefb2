package client

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"patronus/dashboard"
	"patronus/dashboard/auth"
)

// server answers with handle, and gives a client that knows its certificate.
func server(t *testing.T, handle http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewTLSServer(handle)
	t.Cleanup(s.Close)
	c, err := New(Options{URL: s.URL, Token: "t0ken", Fingerprint: fmt.Sprintf("%X", sha256.Sum256(s.Certificate().Raw))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestSecretsAreSent: types hide their secrets wherever they are shown, but the
// dashboard gets them.
func TestSecretsAreSent(t *testing.T) {
	var got string
	c := server(t, func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		got = string(text)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	})
	if _, err := c.Login(t.Context(), dashboard.LoginBody{Username: "ada", Password: `say "friend"`}); err != nil {
		t.Fatal(err)
	}
	if want := `{"password":"say \"friend\"","username":"ada"}`; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
	password := auth.Secret("new")
	if _, err := c.UpdateUser(t.Context(), "a/b", auth.UserChange{Password: &password}); err != nil {
		t.Fatal(err)
	}
	if want := `{"password":"new"}`; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
}

func TestPagesAndRefusals(t *testing.T) {
	c := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t0ken" {
			http.Error(w, "no token", http.StatusUnauthorized)
			return
		}
		switch r.URL.Query().Get("cursor") {
		case "":
			_, _ = io.WriteString(w, `{"items":[{"id":"a"},{"id":"b"}],"next":"2"}`)
		case "2":
			_, _ = io.WriteString(w, `{"items":[{"id":"c"}],"next":"3"}`)
		default:
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"type":"urn:patronus:problem:invalid","title":"Bad Request","status":400,"detail":"no","errors":[{"field":"cursor","detail":"is none"}]}`)
		}
	})
	var ids []string
	var failed error
	for s, err := range All(t.Context(), func(ctx context.Context, o ...Option) (*dashboard.Page[dashboard.Site], error) {
		return c.ListSites(ctx, o...)
	}, Query("sort", "name"), Query("q", "")) {
		if failed = err; err == nil {
			ids = append(ids, s.ID)
		}
	}
	if !slices.Equal(ids, []string{"a", "b", "c"}) {
		t.Errorf("%v", ids)
	}
	if p := (*dashboard.Problem)(nil); !errors.As(failed, &p) || Status(failed) != 400 || p.Errors[0].Field != "cursor" {
		t.Errorf("%v", failed)
	}
	if Status(io.EOF) != 0 {
		t.Error("an error of no dashboard has a status")
	}
}

// TestImpostor: a certificate with another fingerprint gets no token.
func TestImpostor(t *testing.T) {
	asked := false
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer s.Close()
	s.Config.ErrorLog = nil
	c, err := New(Options{URL: s.URL, Token: "t0ken", Fingerprint: fmt.Sprintf("%064x", 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Me(t.Context()); !errors.Is(err, ErrImpostor) || asked {
		t.Errorf("%v, asked %v", err, asked)
	}
	for _, o := range []Options{{URL: "http://a"}, {URL: "a"}, {URL: "https://"}, {URL: "https://a", Fingerprint: "xyz"}, {URL: "https://a", Fingerprint: "00"}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}
