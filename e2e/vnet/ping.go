package vnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/waiter"
)

// pingHeader is the size of an echo message's header in both families (RFC 792,
// RFC 4443 section 4.1).
const pingHeader = 8

// ErrPing is wrapped by errors that an ICMP message reported.
var ErrPing = errors.New("ping refused")

// Ping sends one echo request with size bytes of data and waits for its reply
// until ctx ends. Several may run at once.
func (h *Host) Ping(ctx context.Context, dst netip.Addr, size int) (time.Duration, error) {
	if err := h.reaches(dst); err != nil {
		return 0, err
	}
	network, transport := family(dst)
	var wq waiter.Queue
	ep, terr := h.stack.NewEndpoint(transport, network, &wq)
	if terr != nil {
		return 0, fmt.Errorf("ping %s: %w", dst, stackError(terr))
	}
	defer ep.Close()
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	if terr := ep.Connect(full(netip.AddrPortFrom(dst, 0))); terr != nil {
		return 0, fmt.Errorf("ping %s: %w", dst, stackError(terr))
	}
	request := echoRequest(dst, size)
	start := time.Now()
	if _, terr := ep.Write(bytes.NewReader(request), tcpip.WriteOptions{}); terr != nil {
		return 0, fmt.Errorf("ping %s: %w", dst, stackError(terr))
	}
	var reply bytes.Buffer
	for {
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("ping %s: %w", dst, ctx.Err())
		case <-ready:
		}
		took := time.Since(start)
		reply.Reset()
		_, terr := ep.Read(&reply, tcpip.ReadOptions{})
		if _, again := terr.(*tcpip.ErrWouldBlock); again {
			continue
		}
		if terr != nil {
			return 0, fmt.Errorf("%w: %s: %w", ErrPing, dst, stackError(terr))
		}
		// The stack matches the identifier; the data must be ours.
		if b := reply.Bytes(); len(b) >= pingHeader && bytes.Equal(b[pingHeader:], request[pingHeader:]) {
			return took, nil
		}
	}
}

// echoRequest builds the message; the stack fills in identifier and checksum.
func echoRequest(dst netip.Addr, size int) []byte {
	b := make([]byte, pingHeader+size)
	for i := range b[pingHeader:] {
		b[pingHeader+i] = byte(i)
	}
	if dst.Unmap().Is4() {
		header.ICMPv4(b).SetType(header.ICMPv4Echo)
	} else {
		header.ICMPv6(b).SetType(header.ICMPv6EchoRequest)
	}
	return b
}
