package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"

	"patronus/appliance/enroll"
	"patronus/configs"
)

// EnrollOptions say what appliance brings a token, and what it was told of
// where it stands.
type EnrollOptions struct {
	Token   enroll.Token
	DataDir string
	// LAN are ports that the dashboard cannot know; none leaves them to it.
	LAN []configs.LANPort
	// Uplinks are the interfaces of uplinks by name, where the dashboard does not
	// say them; "" is any.
	Uplinks map[string]string
	Logger  *slog.Logger
}

// firstListenPort is the port of the first uplink that the appliance finds by
// itself: WireGuard's customary one.
const firstListenPort = 51820

func uplinkKeyFile(dataDir, uplink string) string {
	return filepath.Join(dataDir, "keys", uplink+".key")
}

// ErrEnrolled is for a data directory that has a site already.
var ErrEnrolled = errors.New("this appliance has a site already")

// keptRevision is the newest revision of a data directory that a dashboard has
// sent.
func keptRevision(dataDir string) (*configs.Revision, error) {
	fabric, site, err := readIdentity(dataDir)
	if err != nil {
		return nil, err
	}
	roots, err := readableRoots(dataDir)
	if err != nil {
		return nil, err
	}
	store, damage, err := configs.OpenStore(edgeDir(dataDir), fabric, site, roots...)
	if err != nil {
		return nil, err
	}
	rev := store.Current()
	if rev == nil {
		return nil, errors.Join(errors.New("no revision is kept"), damage)
	}
	return rev, nil
}

// Enroll makes the appliance of a data directory the site of a token: it makes
// its keys, which never leave it, proves that it has them, and keeps the first
// revision, the root and the site's identity. It may be repeated until it
// returns nil or [enroll.ErrRefused]: the keys are the same each time.
func Enroll(ctx context.Context, o EnrollOptions) (*configs.Revision, error) {
	if _, site, err := readIdentity(o.DataDir); err == nil {
		return nil, fmt.Errorf("%w, %s (patronus join lets a dashboard configure it): %w", ErrEnrolled, site, enroll.ErrRefused)
	}
	// The node, which may be another user, passes through to its own directory.
	if err := os.MkdirAll(o.DataDir, 0o711); err != nil {
		return nil, fmt.Errorf("enroll: %w", err)
	}
	root, _, err := configs.LoadOrCreateRootKey(rootKeyFile(o.DataDir))
	if err != nil {
		return nil, fmt.Errorf("enroll: %w", err)
	}
	claim := &enroll.Claim{
		Secret: o.Token.Secret(), Fabric: o.Token.Fabric, Site: o.Token.Site, Identity: root.Public(), DataDir: o.DataDir,
		LAN: o.LAN, Version: Version,
	}
	grant, err := enroll.NewClient(o.Token).Claim(ctx, func(ch enroll.Challenge) (*enroll.Envelope, error) {
		plan := ch.Uplinks
		claim.Uplinks = claim.Uplinks[:0]
		if len(plan) == 0 {
			plan = discover(o.Logger)
		}
		var keys []configs.PrivateKey
		for _, p := range plan {
			key, err := uplinkKey(o.DataDir, p.Name)
			if err != nil {
				return nil, err
			}
			if told, ok := o.Uplinks[p.Name]; ok {
				p.Interface = told
			}
			keys = append(keys, key)
			claim.Uplinks = append(claim.Uplinks, enroll.Uplink{
				Name: p.Name, PublicKey: key.Public(), PrivateKeyFile: uplinkKeyFile(o.DataDir, p.Name),
				Interface: p.Interface, ListenPort: p.ListenPort, Endpoints: publicEndpoints(p.Interface, p.ListenPort),
			})
		}
		return enroll.NewEnvelope(ch, claim, root, keys)
	})
	if err != nil {
		return nil, err
	}
	return takeGrant(o, root, claim, grant)
}

// uplinkKey is the key of an uplink, which is made if there is none.
func uplinkKey(dataDir, uplink string) (configs.PrivateKey, error) {
	file := uplinkKeyFile(dataDir, uplink)
	key, err := configs.LoadPrivateKey(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if filepath.Base(file) != uplink+".key" {
		return key, fmt.Errorf("uplink %.40q cannot name a file", uplink)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return key, err
	}
	key = configs.GenerateKey()
	return key, key.WriteFile(file)
}

// takeGrant verifies a first revision and keeps it. The identity is written
// last: what is there is then complete.
func takeGrant(o EnrollOptions, root *configs.RootKey, claim *enroll.Claim, g *enroll.Grant) (*configs.Revision, error) {
	rev, err := configs.Verify(g.Revision, o.Token.Root)
	if err != nil {
		return nil, fmt.Errorf("first revision: %w: %w", enroll.ErrRefused, err)
	}
	cfg, err := rev.Config()
	if err != nil {
		return nil, fmt.Errorf("first revision: %w: %w", enroll.ErrRefused, err)
	}
	if cfg.Fabric != o.Token.Fabric || cfg.Site != o.Token.Site {
		return nil, fmt.Errorf("first revision is for %s of %s: %w", cfg.Site, cfg.Fabric, enroll.ErrRefused)
	}
	for _, u := range cfg.Self().Uplinks {
		if !slices.ContainsFunc(claim.Uplinks, func(c enroll.Uplink) bool {
			return c.Name == u.Name && c.PublicKey == u.PublicKey && c.PrivateKeyFile == u.PrivateKeyFile
		}) {
			return nil, fmt.Errorf("first revision has another key or file for uplink %s: %w", u.Name, enroll.ErrRefused)
		}
	}
	if err := configs.WriteRootPublic(rootPublicFile(o.DataDir), root.Public()); err != nil {
		return nil, err
	}
	if err := configs.WriteRootPublic(joinedFile(o.DataDir), o.Token.Root); err != nil {
		return nil, err
	}
	store, damage, err := configs.OpenStore(edgeDir(o.DataDir), cfg.Fabric, cfg.Site, root.Public(), o.Token.Root)
	if err := errors.Join(err, damage); err != nil {
		return nil, err
	}
	if _, err := store.Save(g.Revision); err != nil {
		return nil, err
	}
	return rev, writeIdentity(o.DataDir, cfg)
}

// EnrollUntil enrolls, and tries again while the dashboard cannot be reached.
func EnrollUntil(ctx context.Context, o EnrollOptions) (*configs.Revision, error) {
	wait := time.Second
	for {
		rev, err := Enroll(ctx, o)
		if err == nil || errors.Is(err, enroll.ErrRefused) || ctx.Err() != nil {
			return rev, err
		}
		o.Logger.Warn("not enrolled yet", "site", o.Token.Site, "err", err, "dur", wait)
		if !sleep(ctx, wait) {
			return nil, ctx.Err()
		}
		wait = min(2*wait, time.Minute)
	}
}

// discover finds the uplinks of a machine: each interface with a default route.
// A machine without any has one uplink that goes wherever the kernel leads.
func discover(log *slog.Logger) []enroll.Planned {
	names, err := defaultInterfaces()
	if err != nil {
		log.Warn("uplinks cannot be found out; taking one for all interfaces", "err", err)
	}
	if len(names) < 2 {
		return []enroll.Planned{{Name: "wan0"}}
	}
	var out []enroll.Planned
	for i, name := range names {
		out = append(out, enroll.Planned{Name: fmt.Sprintf("wan%d", i), Interface: name, ListenPort: uint16(firstListenPort + i)})
	}
	return out
}

// mostUplinks bounds what is discovered.
const mostUplinks = 8

// defaultInterfaces are the interfaces with a default route, in the order of
// their metrics (rtnetlink(7)).
func defaultInterfaces() ([]string, error) {
	c, err := rtnetlink.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	defer c.Close()
	routes, err := c.Route.List()
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	slices.SortStableFunc(routes, func(a, b rtnetlink.RouteMessage) int {
		return int(a.Attributes.Priority) - int(b.Attributes.Priority)
	})
	var names []string
	for i := range routes {
		r := &routes[i]
		if r.DstLength != 0 || r.Type != unix.RTN_UNICAST || r.Attributes.OutIface == 0 || r.Attributes.Table != unix.RT_TABLE_MAIN {
			continue
		}
		iface, err := net.InterfaceByIndex(int(r.Attributes.OutIface))
		if err != nil || slices.Contains(names, iface.Name) || len(names) == mostUplinks {
			continue
		}
		names = append(names, iface.Name)
	}
	return names, nil
}

// publicEndpoints are the addresses of an interface that others can call: those
// that no NAT stands before. Without a fixed port there are none.
func publicEndpoints(name string, port uint16) []netip.AddrPort {
	iface, err := net.InterfaceByName(name)
	if err != nil || port == 0 {
		return nil
	}
	addrs, err := iface.Addrs()
	if err != nil {
		return nil
	}
	var out []netip.AddrPort
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		at := p.Addr().Unmap()
		shared := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10) // RFC 6598
		if at.IsGlobalUnicast() && !at.IsPrivate() && !shared.Contains(at) && len(out) < 2 {
			out = append(out, netip.AddrPortFrom(at, port))
		}
	}
	return out
}

// ReadToken reads a token from a file, or parses it as it stands.
func ReadToken(text, file string) (enroll.Token, error) {
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return enroll.Token{}, fmt.Errorf("enrollment token: %w", err)
		}
		text = strings.TrimSpace(string(b))
	}
	return enroll.Parse(text)
}
