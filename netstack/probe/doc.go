// Package probe owns the measuring of a path: the STAMP codec (RFC 8762, RFC
// 8972), the sender's session with its rate policy, the reflector, and the
// receiver's in-band counters.
//
// It judges nothing (package path does) and sends nothing: requests and replies
// are bytes, time is a parameter, and there is no goroutine, clock or socket.
//
//	prober                                      the peer's engine
//	Session.Due, Next -> AppendRequest
//	StampRequest (T1, S_TxC) ===== path =====>  T2; Reflect (R_RxC)
//	Session.OnReply (T4, Rx) <==== path =====   StampReply (T3, R_TxC)
//	      |
//	      +--> path.Probe, path.Counts --> path.Tracker
//	Session.Expire --> path.Probe{Lost}
//
// Both stamps are made in place just when the packet is put into the
// WireGuard device's read buffer, so that queues of ours are neither measured
// as delay nor counted as loss. The payload travels in UDP port 862 with no UDP
// checksum (0, RFC 768): WireGuard authenticates the packet, and stamping does
// not have to mend a sum.
//
// Times on the wire come from the caller and must never step: take them as
// start.Add(time.Since(start)) from one start of the process.
//
// Concurrency: a Session, a Budget and a ReflectorState belong to one goroutine
// each. An InBand belongs to the goroutine that receives its path; others read
// its Snapshot. The codec's functions keep no state.
package probe
