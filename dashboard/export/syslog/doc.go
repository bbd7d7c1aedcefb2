// Package syslog owns syslog messages: their form (RFC 5424) and their
// transports, UDP (RFC 5426), TCP with octet counting (RFC 6587, 3.4.1) and TLS
// (RFC 5425).
//
// It does not know what an event is, and queues nothing: syslog has no
// acknowledgement, so what a transport took may still be lost with it.
//
// Messages are values. A Writer belongs to one goroutine.
package syslog
