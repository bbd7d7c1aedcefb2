package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"patronus/appliance/ledger"
	"patronus/dashboard"
	"patronus/dashboard/auth"
	"patronus/dashboard/control"
	"patronus/dashboard/web"
)

// password is that of every user of a test.
const password = "correct horse battery"

func main() {
	name := flag.String("world", "three", "empty, three, thousand, hostile or fresh")
	listen := flag.String("listen", "127.0.0.1:0", "address")
	dist := flag.String("dist", "", "folder of the interface's files instead of those compiled in")
	rate := flag.Int("rate", 1_000_000, "requests of a user in a minute")
	flag.Parse()
	if err := run(*name, *listen, *dist, *rate); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func run(name, listen, dist string, rate int) error {
	dir, err := os.MkdirTemp("", "fleet-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	pages, err := open(dist)
	if err != nil {
		return err
	}
	l, err := ledger.Open(dir + "/ledger")
	if err != nil {
		return err
	}
	defer l.Close()
	directory, err := auth.Open(l, auth.Options{Cost: auth.Cost{Memory: 64, Passes: 1, Threads: 1}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	network := networkOf(name)
	plane, err := control.Open(ctx, l, network, time.Now)
	if err != nil {
		return err
	}
	w := newWorld(name, network)
	o := dashboard.Options{
		Directory: directory, Ledger: l, Plane: plane, States: w, Sites: w, History: w, Events: w, Nodes: w, Captures: w,
		Pages: pages, RequestsPerMinute: rate, Version: "test", Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	server, err := dashboard.New(o)
	if err != nil {
		return err
	}
	code, _, _ := directory.SetupCode()
	if name != "fresh" {
		if err := people(ctx, directory, code); err != nil {
			return err
		}
	}
	cert, err := dashboard.SelfSigned(dir, nil, time.Now())
	if err != nil {
		return err
	}
	at, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, tls.NewListener(at, cert.TLS())) }()
	go w.live(ctx, server.Hub())
	err = json.NewEncoder(os.Stdout).Encode(map[string]string{"url": "https://" + at.Addr().String(), "code": code, "build": pages.Manifest().Build})
	if err != nil {
		return err
	}
	go func() {
		// Whoever started us ends us by closing our input.
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return <-served
}

func open(dist string) (*web.Pages, error) {
	if dist == "" {
		return web.Open()
	}
	return web.Load(os.DirFS(dist))
}

// people are the users admin, operator, viewer, and scoped: an admin of one region.
func people(ctx context.Context, d *auth.Directory, code string) error {
	if _, err := d.Setup(ctx, code, auth.NewUser{Name: "admin", Password: password}, auth.Client{}); err != nil {
		return err
	}
	root := auth.Actor{User: "admin", Role: auth.Admin, Permissions: auth.All}
	for _, u := range []auth.NewUser{
		{Name: "operator", Role: auth.Operator}, {Name: "viewer", Role: auth.Viewer}, {Name: "scoped", Role: auth.Admin, Scope: auth.Scope{"region": "emea"}},
	} {
		u.Password = password
		if _, err := d.CreateUser(ctx, root, u); err != nil {
			return err
		}
	}
	return nil
}
