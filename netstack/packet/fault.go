package packet

// Fault says why a packet could not be decoded; 0 means it could.
type Fault uint8

// The faults. Those from BadSource on judge addresses: the Info of such a
// packet is complete, so that a caller who has a use for it (a DHCP discover
// comes from 0.0.0.0) can tell. After any other fault the Info is undefined.
const (
	OK             Fault = iota
	Truncated            // shorter than its headers or its length field say
	BadVersion           // neither IPv4 nor IPv6
	BadHeader            // IPv4 header length under 20, or an option that does not fit
	BadLength            // total length under the header's
	BadChecksum          // IPv4 header checksum (RFC 1071)
	SourceRoute          // IPv4 LSRR or SSRR, IPv6 routing header with segments left (RFC 7126, RFC 5095)
	BadExtension         // IPv6 hop-by-hop header that is not the first (RFC 8200, 4.1)
	LongChain            // more than maxExtensions IPv6 extension headers
	BadTransport         // TCP data offset or UDP length impossible
	TinyFragment         // the transport header is not all in the first fragment (RFC 1858, RFC 7112)
	BadFragment          // past 65535 bytes, empty, not a multiple of 8, or a fragment of a fragment
	BadSource            // unspecified, loopback, multicast, broadcast or IPv4-mapped
	BadDestination       // unspecified, loopback or IPv4-mapped
	Land                 // source and destination are the same, ports included
	// FaultCount is the number of values: the size of an array of counters.
	FaultCount
)

var faultNames = [FaultCount]string{
	"ok", "truncated", "bad_version", "bad_header", "bad_length", "bad_checksum", "source_route",
	"bad_extension", "long_chain", "bad_transport", "tiny_fragment", "bad_fragment",
	"bad_source", "bad_destination", "land",
}

// String is the fault's name as counters and metrics spell it.
func (f Fault) String() string {
	if f < FaultCount {
		return faultNames[f]
	}
	return "unknown"
}
