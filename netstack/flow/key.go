package flow

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"patronus/netstack/packet"
)

// ErrKey is returned for a text that is not the name of a flow.
var ErrKey = errors.New("not a flow id")

// protocols are written by name if they have one here, else by number.
var protocols = [...]struct {
	number uint8
	name   string
}{{packet.TCP, "tcp"}, {packet.UDP, "udp"}, {packet.ICMP, "icmp"}, {packet.ICMPv6, "icmp6"}, {packet.SCTP, "sctp"}}

// FormatKey is the name of a flow: protocol, then address and port of source
// and destination, joined by "-".
//
//	tcp-10.1.1.5-49152-10.2.0.7-443
//	udp-fd00_1__5-5060-fd00_2__7-5060
//
// IPv6 has "_" for ":", so that only characters occur that a URL never escapes
// (RFC 3986, 2.3). Each key has one name and each name one key.
func FormatKey(k *packet.Key) string {
	var space [112]byte
	b := appendProtocol(space[:0], k.Proto)
	b = appendEndpoint(b, &k.Src, k.SrcPort)
	b = appendEndpoint(b, &k.Dst, k.DstPort)
	return string(b)
}

func appendProtocol(b []byte, proto uint8) []byte {
	for i := range protocols {
		if protocols[i].number == proto {
			return append(b, protocols[i].name...)
		}
	}
	return strconv.AppendUint(b, uint64(proto), 10)
}

func appendEndpoint(b []byte, a *packet.Addr, port uint16) []byte {
	b = append(b, '-')
	at := len(b)
	b = a.Netip().AppendTo(b)
	for i := at; i < len(b); i++ {
		if b[i] == ':' {
			b[i] = '_'
		}
	}
	return strconv.AppendUint(append(b, '-'), uint64(port), 10)
}

// ParseKey reads what [FormatKey] writes and nothing else; the error is [ErrKey].
func ParseKey(s string) (packet.Key, error) {
	part := strings.Split(s, "-")
	if len(s) > 112 || len(part) != 5 {
		return packet.Key{}, fmt.Errorf("%w: %.120q", ErrKey, s)
	}
	proto, ok0 := parseProtocol(part[0])
	src, ok1 := parseEndpoint(part[1], part[2])
	dst, ok2 := parseEndpoint(part[3], part[4])
	k := packet.NewKey(proto, src, dst)
	if !ok0 || !ok1 || !ok2 || FormatKey(&k) != s {
		return packet.Key{}, fmt.Errorf("%w: %q", ErrKey, s)
	}
	return k, nil
}

func parseProtocol(s string) (uint8, bool) {
	for i := range protocols {
		if protocols[i].name == s {
			return protocols[i].number, true
		}
	}
	n, err := strconv.ParseUint(s, 10, 8)
	return uint8(n), err == nil
}

func parseEndpoint(addr, port string) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(strings.ReplaceAll(addr, "_", ":"))
	if err != nil || a.Zone() != "" {
		return netip.AddrPort{}, false
	}
	p, err := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(a, uint16(p)), err == nil
}
