// Package release owns what says that an image is ours: signing keys, the
// manifest of an image, the update file and the checksums of a release.
//
// It does not know how an image is built or where it is installed. Everything
// is a value or a pure function of its input; readers are used by one
// goroutine at a time.
//
//	update file:  magic | u32 length | manifest (JSON) | signature | payload
//	                                   \__ decides ___________/      \_ SHA-256 in the manifest
//
// An appliance reads the first few hundred bytes, and refuses an image that is
// unsigned, for another machine or too old before it fetches the rest.
package release
