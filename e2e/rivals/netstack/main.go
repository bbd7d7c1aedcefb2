// Command netstack is a stand-in for products that terminate TCP in a user
// space stack on both sides of a tunnel: it joins TCP connections of the
// kernel's stack with connections inside a WireGuard tunnel, through
// wireguard-go's own netstack, unmodified and untuned.
//
//	host -- kernel TCP --> A == gVisor TCP over WireGuard == B -- kernel TCP --> host
package main

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/netstack"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "netstack:", err)
		os.Exit(1)
	}
}

func run() error {
	keyFile := flag.String("key", "", "file with our private key, base64")
	peer := flag.String("peer", "", "public key of the other side, base64")
	endpoint := flag.String("endpoint", "", "ip:port of the other side")
	port := flag.Int("listen-port", 51820, "UDP port of the tunnel")
	address := flag.String("address", "", "our address inside the tunnel")
	near := flag.String("near", "", "listen here with the kernel, and dial -far inside the tunnel")
	far := flag.String("far", "", "address inside the tunnel")
	accept := flag.Int("accept", 0, "listen on this port inside the tunnel, and dial -to with the kernel")
	to := flag.String("to", "", "address that the kernel dials")
	mtu := flag.Int("mtu", 1420, "of the tunnel")
	flag.Parse()
	own, err := netip.ParseAddr(*address)
	if err != nil {
		return err
	}
	tun, stack, err := netstack.CreateNetTUN([]netip.Addr{own}, nil, *mtu)
	if err != nil {
		return err
	}
	d := device.NewDevice(tun, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, "netstack "))
	defer d.Close()
	text, err := os.ReadFile(*keyFile)
	if err != nil {
		return err
	}
	private, public := hexKey(string(text)), hexKey(*peer)
	err = d.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=%d\npublic_key=%s\nendpoint=%s\nallowed_ip=0.0.0.0/0\n", private, *port, public, *endpoint))
	if err != nil {
		return err
	}
	if err := d.Up(); err != nil {
		return err
	}
	var l net.Listener
	var dial func() (net.Conn, error)
	switch {
	case *near != "":
		l, err = net.Listen("tcp", *near)
		dial = func() (net.Conn, error) { return stack.Dial("tcp", *far) }
	case *accept != 0:
		l, err = stack.ListenTCP(&net.TCPAddr{Port: *accept})
		dial = func() (net.Conn, error) { return net.Dial("tcp", *to) }
	default:
		return errors.New("one of -near and -accept is needed")
	}
	if err != nil {
		return err
	}
	go serve(l, dial)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
	return nil
}

// hexKey is a base64 key as the device's configuration wants it.
func hexKey(s string) string {
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
	if err != nil {
		return "" // refused by the device
	}
	return hex.EncodeToString(b)
}

// serve joins each connection with a dialled one until the listener fails.
func serve(l net.Listener, dial func() (net.Conn, error)) {
	for {
		a, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			b, err := dial()
			if err != nil {
				a.Close()
				return
			}
			join(a, b)
		}()
	}
}

func join(a, b net.Conn) {
	defer a.Close()
	defer b.Close()
	var both sync.WaitGroup
	both.Go(func() { pump(a, b) })
	pump(b, a)
	both.Wait()
}

// pump copies one direction and passes its end on. How a connection ends is
// the business of its ends.
func pump(dst, src net.Conn) {
	_, _ = io.Copy(dst, src)
	if c, ok := dst.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}
