package appliance

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"patronus/configs"
)

// The files of an appliance, below its data directory:
//
//	edge/root.key      the key that a standalone site made and signs with
//	edge/root.pub      its public half, by which the site's own revisions are verified
//	edge/joined.pub    the root of the fabric that the site has joined, if it has
//	edge/left.pub      of the one that it has left: what it signed before is still run
//	edge/identity      fabric and site, so that the edge needs no YAML
//	edge/revision-a,b  the two newest good revisions
//	run/               sockets and pids
//	node/              the node's own: history
func edgeDir(dataDir string) string { return filepath.Join(dataDir, "edge") }

func rootKeyFile(dataDir string) string { return filepath.Join(edgeDir(dataDir), "root.key") }

func rootPublicFile(dataDir string) string { return filepath.Join(edgeDir(dataDir), "root.pub") }

func joinedFile(dataDir string) string { return filepath.Join(edgeDir(dataDir), "joined.pub") }

func leftFile(dataDir string) string { return filepath.Join(edgeDir(dataDir), "left.pub") }

// trustedRoots are the site's own root, and that of the fabric it has joined.
func trustedRoots(dataDir string) ([]ed25519.PublicKey, error) {
	own, err := configs.LoadRootPublic(rootPublicFile(dataDir))
	if err != nil {
		return nil, err
	}
	joined, err := configs.LoadRootPublic(joinedFile(dataDir))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []ed25519.PublicKey{own}, nil
	case err != nil:
		return nil, err
	}
	return []ed25519.PublicKey{own, joined}, nil
}

// readableRoots are those that a kept revision may be signed by.
func readableRoots(dataDir string) ([]ed25519.PublicKey, error) {
	roots, err := trustedRoots(dataDir)
	if err != nil {
		return nil, err
	}
	left, err := configs.LoadRootPublic(leftFile(dataDir))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return roots, nil
	case err != nil:
		return nil, err
	}
	return append(roots, left), nil
}

// ErrJoined is for a site that trusts another root already.
var ErrJoined = errors.New("site has joined another fabric")

// Join makes the appliance of a data directory accept revisions of controllers
// that root certifies, from the next one on. Its own configuration stays until
// then. It changes nothing if the site has joined root already.
func Join(dataDir string, root ed25519.PublicKey) error {
	old, err := configs.LoadRootPublic(joinedFile(dataDir))
	switch {
	case err == nil && old.Equal(root):
		return nil
	case err == nil:
		return fmt.Errorf("%w, by the root %s: patronus leave first", ErrJoined, configs.Fingerprint(old))
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if _, err := os.Stat(rootPublicFile(dataDir)); err != nil {
		return fmt.Errorf("is there an appliance in %s? %w", dataDir, err)
	}
	return configs.WriteRootPublic(joinedFile(dataDir), root)
}

// Leave undoes [Join]: the configuration stays, and nobody but the site itself
// changes it any more.
func Leave(dataDir string) error {
	err := os.Rename(joinedFile(dataDir), leftFile(dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	return nil
}

// Roots are the public keys of a data directory: the appliance's own root, and
// the one that it joined, nil if none.
func Roots(dataDir string) (own, joined ed25519.PublicKey, err error) {
	roots, err := trustedRoots(dataDir)
	if err != nil {
		return nil, nil, err
	}
	if len(roots) > 1 {
		joined = roots[1]
	}
	return roots[0], joined, nil
}

// openRevisions opens the revisions of the site that cfg is for, and the key
// that signs them. A standalone site is a fabric of one: at its first start it
// makes the root key itself.
func openRevisions(cfg *configs.Config, dataDir string) (*configs.Store, *configs.RootKey, error) {
	key, created, err := configs.LoadOrCreateRootKey(rootKeyFile(dataDir))
	if err != nil {
		return nil, nil, err
	}
	if created {
		if err := configs.WriteRootPublic(rootPublicFile(dataDir), key.Public()); err != nil {
			return nil, nil, err
		}
	}
	roots, err := readableRoots(dataDir)
	if err != nil {
		return nil, nil, err
	}
	if !roots[0].Equal(key.Public()) {
		return nil, nil, fmt.Errorf("%s is not of the key in %s", rootPublicFile(dataDir), rootKeyFile(dataDir))
	}
	store, damage, err := configs.OpenStore(edgeDir(dataDir), cfg.Fabric, cfg.Site, roots...)
	if err != nil {
		return nil, nil, err
	}
	if damage != nil && store.Current() == nil {
		return nil, nil, damage
	}
	return store, key, nil
}

// readConfig parses a configuration file.
func readConfig(file string) (*configs.Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return configs.Parse(file, text)
}

// installConfig makes a configuration file the newest revision on disk. It is
// for the time before the edge runs; afterwards nextRevision is.
func installConfig(file, dataDir string) (*configs.Revision, error) {
	cfg, err := readConfig(file)
	if err != nil {
		return nil, err
	}
	// The node, which may be another user, passes through to its own directory.
	if err := os.MkdirAll(dataDir, 0o711); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	store, key, err := openRevisions(cfg, dataDir)
	if err != nil {
		return nil, err
	}
	if err := writeIdentity(dataDir, cfg); err != nil {
		return nil, err
	}
	if managed, err := managedBy(store, dataDir); err != nil || managed != nil {
		// Its dashboard configures the site, whatever its file says.
		return managed, err
	}
	return store.Issue(cfg, key, time.Now())
}

// managedBy is the revision that a dashboard of the joined fabric has sent, nil
// if the site's file counts.
func managedBy(store *configs.Store, dataDir string) (*configs.Revision, error) {
	_, joined, err := Roots(dataDir)
	if rev := store.Current(); err == nil && joined != nil && rev != nil && rev.Controller != nil {
		return rev, nil
	}
	return nil, err
}

// nextRevision signs a configuration file as the revision after the newest on
// disk, and leaves it to the edge to keep it once it works.
func nextRevision(file, dataDir string) (signed []byte, number uint64, err error) {
	cfg, err := readConfig(file)
	if err != nil {
		return nil, 0, err
	}
	store, key, err := openRevisions(cfg, dataDir)
	if err != nil {
		return nil, 0, err
	}
	current := store.Current()
	if current == nil {
		return nil, 0, errors.New("there is no revision yet")
	}
	if managed, err := managedBy(store, dataDir); err != nil {
		return nil, 0, err
	} else if managed != nil {
		return nil, 0, fmt.Errorf("this site is configured by the dashboard at %s: change it there", current.Controller.Site)
	}
	rev, err := configs.NewRevision(cfg, current.Epoch, current.Number+1, time.Now(), current.Hash())
	if err != nil {
		return nil, 0, err
	}
	if string(rev.Body) == string(current.Body) {
		return store.Signed(), current.Number, nil
	}
	signed, err = rev.Sign(key)
	return signed, rev.Number, err
}

// identity says whose revisions the edge directory holds.
func writeIdentity(dataDir string, cfg *configs.Config) error {
	file := filepath.Join(edgeDir(dataDir), "identity")
	text := cfg.Fabric + " " + cfg.Site + "\n"
	if old, err := os.ReadFile(file); err == nil {
		if string(old) == text {
			return nil
		}
		return fmt.Errorf("%s belongs to %q: give %s %s a data directory of its own", dataDir, string(old[:len(old)-1]), cfg.Fabric, cfg.Site)
	}
	if err := os.MkdirAll(edgeDir(dataDir), 0o700); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	return nil
}

func readIdentity(dataDir string) (fabric, site string, err error) {
	text, err := os.ReadFile(filepath.Join(edgeDir(dataDir), "identity"))
	if err != nil {
		return "", "", fmt.Errorf("identity: %w", err)
	}
	if _, err := fmt.Sscanf(string(text), "%s %s", &fabric, &site); err != nil {
		return "", "", fmt.Errorf("identity: %w", err)
	}
	return fabric, site, nil
}
