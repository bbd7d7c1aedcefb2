package appliance

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"patronus/configs"
)

// The files of an appliance, below its data directory:
//
//	edge/root.key      the key that a standalone site made and signs with
//	edge/root.pub      the root it trusts; joining a dashboard replaces it
//	edge/identity      fabric and site, so that the edge needs no YAML
//	edge/revision-a,b  the two newest good revisions
//	run/               sockets and pids
//	node/              the node's own, below it:
//	  node.sock          its interface
//	  history/           the site's history
//	  dashboard/         everybody's, if this was ever a dashboard
//	  roles              who is a dashboard, and the keys that say so
//	  telemetry-mark     up to where the history has the edge's telemetry
func edgeDir(dataDir string) string { return filepath.Join(dataDir, "edge") }

func rootKeyFile(dataDir string) string { return filepath.Join(edgeDir(dataDir), "root.key") }

// SigningKeyFile is the key that this appliance signs with, below a data
// directory. Who can read it may promote and demote.
func SigningKeyFile(dataDir string) string { return rootKeyFile(dataDir) }

func rootPublicFile(dataDir string) string { return filepath.Join(edgeDir(dataDir), "root.pub") }

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
	root, err := configs.LoadRootPublic(rootPublicFile(dataDir))
	if err != nil {
		return nil, nil, err
	}
	if !root.Equal(key.Public()) {
		return nil, nil, errors.New("this site trusts another root than its own: it is configured by its dashboard, not by a file")
	}
	store, damage, err := configs.OpenStore(edgeDir(dataDir), cfg.Fabric, cfg.Site, root)
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
	return store.Issue(cfg, key, time.Now())
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
