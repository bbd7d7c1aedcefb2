// Package enroll owns how a new appliance becomes a site of a fabric: the
// one-time token that a person carries to it, the claim that it makes with the
// token, and the proofs in the claim.
//
// It keeps nothing and decides nothing: package control keeps tokens and says who
// has won, the appliance writes its own files.
//
//	dashboard                       person                    appliance
//	token (hash kept) ------------> carries -----------------> [Parse]
//	[Challenge] <----------------- POST challenge ------------ pins the certificate
//	[Envelope.Open] <------------- POST claim ---------------- [NewEnvelope]: both kinds of keys proved
//	first revision, signed ------------------------------------> verified by the token's root
//
// A token has the fingerprint of the dashboard's certificate and the fabric's
// root in it, so that nothing of the first contact is taken on trust. Values are
// immutable; a [Client] is safe for concurrent use.
package enroll
