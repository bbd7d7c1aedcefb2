package slot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// State is what an appliance remembers of its images, on the data partition.
type State struct {
	// Floor is the newest sequence number that ran well here; nothing older is
	// installed (anti-rollback).
	Floor  uint64   `json:"floor"`
	Trial  *Trial   `json:"trial,omitempty"`
	Failed *Failure `json:"failed,omitempty"`
}

// Trial is an update that was installed and has not been judged.
type Trial struct {
	Seq         uint64      `json:"seq"`
	Version     string      `json:"version"`
	From        uint64      `json:"from"`
	InstalledAt time.Time   `json:"installed_at"`
	Expect      Expectation `json:"expect"`
}

// Failure is the newest update that was given up.
type Failure struct {
	Seq     uint64 `json:"seq"`
	Version string `json:"version,omitempty"`
	Why     string `json:"why"`
}

// LoadState reads the state; without a file it is empty. A damaged file is an
// error: what it said about older images is not known.
func LoadState(file string) (*State, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return &State{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("image state: %w", err)
	}
	var s State
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("image state: %s: %w", file, err)
	}
	return &s, nil
}

// SaveState replaces the file as a whole: after a crash it is the old one or
// the new one.
func SaveState(file string, s *State) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("image state: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("image state: %w", err)
	}
	f, err := os.OpenFile(file+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("image state: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("image state: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("image state: %w", err)
	}
	return syncDir(filepath.Dir(file))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
