package tunnel

import "encoding/binary"

// A tag says whose a buffer is, outside of the message in it: the device shows
// its Bind ciphertext and an endpoint, but no peer. It lies where neither the
// message nor the device's padding and authenticator reach: behind a message
// of the usual size, so that no second page of the buffer is touched, or at
// the buffer's end. A message of exactly the size in between could be either,
// so both are written.
const (
	tagMagic  = 0x9a7c3d51
	tagLen    = 8
	tagNear   = 2040
	sealMin   = 16           // authenticator
	sealMax   = sealMin + 15 // and padding
	tailRoom  = sealMax + 1 + tagLen
	tagNearTo = tagNear + tagLen
)

// putTag marks buf, whose packet ends at end and is not sealed yet.
func putTag(buf []byte, end int, id uint32) {
	if end+sealMin <= tagNear && len(buf) >= tagNearTo {
		binary.LittleEndian.PutUint64(buf[tagNear:], tagMagic<<32|uint64(id))
	}
	if end+sealMax > tagNear || len(buf) < tagNearTo {
		binary.LittleEndian.PutUint64(buf[len(buf)-tagLen:], tagMagic<<32|uint64(id))
	}
}

// readTag finds the tag behind a sealed message in its buffer, which ends with
// its capacity, or after room bytes if that is not 0.
func readTag(sealed []byte, room int) (id uint32, ok bool) {
	buf := sealed[:cap(sealed)]
	if room > 0 && len(sealed) <= room && room <= len(buf) {
		buf = buf[:room]
	}
	at := len(buf) - tagLen
	if len(sealed) <= tagNear && len(buf) >= tagNearTo {
		at = tagNear
	}
	if at < len(sealed) {
		return 0, false
	}
	v := binary.LittleEndian.Uint64(buf[at:])
	return uint32(v), v>>32 == tagMagic
}
