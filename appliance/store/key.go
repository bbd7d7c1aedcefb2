package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/cespare/xxhash/v2"

	"patronus/netstack/path"
)

// Keys begin with their kind, then the day, so that a day is dropped whole; see
// FORMAT.md. These are the kinds that stay at home.
const (
	kindFleet   = 'q' // sketches of all series, by day, hour and metric
	kindPending = 'p' // blocks that the sketches do not hold yet
	kindFeed    = 'i' // change feed: sequence number -> key
	kindCursor  = 'c' // of a site that is collected
	kindMeta    = 'm' // version, identity, marks
)

var errKey = errors.New("not a key of the store")

func dayOf(ms int64) uint32 { return uint32(floor(ms, dayMs) / dayMs) }

// floor is the greatest multiple of step that is not after ms.
func floor(ms, step int64) int64 {
	r := ms % step
	if r < 0 {
		r += step
	}
	return ms - r
}

// appendDay is the prefix of all keys of a kind, or kind and tier, and a day.
func appendDay(prefix []byte, day uint32) []byte {
	return binary.BigEndian.AppendUint32(append([]byte(nil), prefix...), day)
}

// dayIn reads the day that is at an index of a key.
func dayIn(key []byte, at int) uint32 { return binary.BigEndian.Uint32(key[at:]) }

// key is where the block is kept: 'b' tier day site 0 path 0 start.
func (id BlockID) key() []byte {
	k := make([]byte, 0, 16+len(id.Site)+len(id.Path)+2)
	k = append(k, byte(KindBlock), byte(id.Tier))
	k = binary.BigEndian.AppendUint32(k, dayOf(id.Start))
	k = append(append(k, id.Site...), 0)
	k = append(append(k, id.Path...), 0)
	return binary.BigEndian.AppendUint64(k, uint64(id.Start))
}

// parseBlockKey is the inverse of [BlockID.key].
func parseBlockKey(k []byte) (BlockID, error) {
	var id BlockID
	if len(k) < 16 || k[0] != byte(KindBlock) {
		return id, errKey
	}
	id.Tier = Tier(k[1])
	day := binary.BigEndian.Uint32(k[2:])
	names := k[6 : len(k)-8]
	id.Start = int64(binary.BigEndian.Uint64(k[len(k)-8:]))
	site, rest, ok := bytes.Cut(names, []byte{0})
	if !ok || len(rest) == 0 || rest[len(rest)-1] != 0 || bytes.IndexByte(rest[:len(rest)-1], 0) >= 0 {
		return id, errKey
	}
	id.Site, id.Path = string(site), path.ID(rest[:len(rest)-1])
	if id.Tier < Raw || id.Tier > Hour || dayOf(id.Start) != day || id.Start%id.Tier.Span() != 0 {
		return id, errKey
	}
	return id, nil
}

// timed is a key of a kind that lists things of sites by time: kind
// day at site 0 tail.
func timed(kind Kind, at int64, site, tail string) []byte {
	k := make([]byte, 0, 14+len(site)+len(tail))
	k = append(k, byte(kind))
	k = binary.BigEndian.AppendUint32(k, dayOf(at))
	k = binary.BigEndian.AppendUint64(k, uint64(at))
	return append(append(append(k, site...), 0), tail...)
}

// timedPrefix is the prefix of such keys of one day.
func timedPrefix(kind byte, day uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{kind}, day)
}

func parseTimed(k []byte) (at int64, site, tail string, err error) {
	if len(k) < 14 {
		return 0, "", "", errKey
	}
	at = int64(binary.BigEndian.Uint64(k[5:]))
	site, tail, ok := strings.Cut(string(k[13:]), "\x00")
	if !ok || at < 0 || at > math.MaxInt64/2 || dayOf(at) != binary.BigEndian.Uint32(k[1:]) {
		return 0, "", "", errKey
	}
	return at, site, tail, nil
}

// ackKey is where an acknowledgement is kept: 'k' site 0 event.
func ackKey(site, event string) []byte {
	k := append(append([]byte{byte(KindAck)}, site...), 0)
	return append(k, event...)
}

func fleetKey(hour int64, m Metric) []byte {
	k := timedPrefix(kindFleet, dayOf(hour))
	k = binary.BigEndian.AppendUint64(k, uint64(hour))
	return append(k, byte(m))
}

func feedKey(seq uint64) []byte { return binary.BigEndian.AppendUint64([]byte{kindFeed}, seq) }

func pendingKey(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte{kindPending}, n) }

func cursorKey(site string) []byte { return append([]byte{kindCursor}, site...) }

func metaKey(name string) []byte { return append([]byte{kindMeta}, name...) }

// siteOf is the site that a federated key belongs to.
func siteOf(kind Kind, key []byte) (string, error) {
	if len(key) == 0 || key[0] != byte(kind) {
		return "", errKey
	}
	switch kind {
	case KindBlock:
		id, err := parseBlockKey(key)
		return id.Site, err
	case KindFlows, KindTotals, KindEvent, KindState:
		_, site, _, err := parseTimed(key)
		return site, err
	case KindAck:
		site, _, ok := strings.Cut(string(key[1:]), "\x00")
		if !ok {
			return "", errKey
		}
		return site, nil
	default:
		return "", errKey
	}
}

// sumSize is the length of the checksum at the end of each value.
const sumSize = 8

// seal appends the checksum of key and value (XXH64) to value. A value that
// gets under another key, or a key that got another value, does not fit.
func seal(key, value []byte) []byte {
	return binary.BigEndian.AppendUint64(value, sum(key, value))
}

func sum(key, value []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(key)
	_, _ = d.Write(value)
	return d.Sum64()
}

// unseal checks the checksum and takes it off. The result is part of sealed.
func unseal(key, sealed []byte) ([]byte, error) {
	n := len(sealed) - sumSize
	if n < 0 {
		return nil, damaged(key)
	}
	if binary.BigEndian.Uint64(sealed[n:]) != sum(key, sealed[:n]) {
		return nil, damaged(key)
	}
	return sealed[:n], nil
}

func damaged(key []byte) error { return fmt.Errorf("%w: key %.80q", ErrDamaged, key) }
