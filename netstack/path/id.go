package path

import (
	"errors"
	"fmt"
	"strings"
)

// ID names a path from this site's side: "hq.wan0~east.lte0" is the path from
// uplink wan0 of hq to uplink lte0 of east. It consists of characters that RFC
// 3986 (2.3) leaves unreserved, so it fits in a URL as it is.
type ID string

// ErrID is wrapped by every error of [ParseID].
var ErrID = errors.New("not a path id")

// maxName is the longest name of a site or uplink, octets (as a DNS label).
const maxName = 63

// Ends are the two attachments that a path joins.
type Ends struct {
	LocalSite, LocalUplink   string
	RemoteSite, RemoteUplink string
}

// ID joins the names. It does not validate them: names come from a validated
// configuration.
func (e Ends) ID() ID {
	return ID(e.LocalSite + "." + e.LocalUplink + "~" + e.RemoteSite + "." + e.RemoteUplink)
}

// Reverse is the same path seen from the other side.
func (e Ends) Reverse() Ends {
	return Ends{LocalSite: e.RemoteSite, LocalUplink: e.RemoteUplink, RemoteSite: e.LocalSite, RemoteUplink: e.LocalUplink}
}

// NewID builds the id of the path between two uplinks.
func NewID(localSite, localUplink, remoteSite, remoteUplink string) ID {
	return Ends{LocalSite: localSite, LocalUplink: localUplink, RemoteSite: remoteSite, RemoteUplink: remoteUplink}.ID()
}

// ParseID takes an id apart. Names have 1 to 63 letters, digits, hyphens or
// underscores; anything else is refused with an error wrapping [ErrID].
func ParseID(s string) (Ends, error) {
	local, remote, ok := strings.Cut(s, "~")
	if !ok {
		return Ends{}, fmt.Errorf("%w: %.80q has no ~", ErrID, s)
	}
	var e Ends
	var ok1, ok2 bool
	e.LocalSite, e.LocalUplink, ok1 = strings.Cut(local, ".")
	e.RemoteSite, e.RemoteUplink, ok2 = strings.Cut(remote, ".")
	if !ok1 || !ok2 {
		return Ends{}, fmt.Errorf("%w: %.80q: each end is site.uplink", ErrID, s)
	}
	for _, name := range [...]string{e.LocalSite, e.LocalUplink, e.RemoteSite, e.RemoteUplink} {
		if !validName(name) {
			return Ends{}, fmt.Errorf("%w: %.80q: bad name %.80q", ErrID, s, name)
		}
	}
	return e, nil
}

func validName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}
