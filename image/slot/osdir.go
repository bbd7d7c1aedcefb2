package slot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// OSDir is a directory of the EFI partition as the kernel mounts it (vfat with
// dirsync: names are on the disk when a call returns).
type OSDir string

// List implements Dir.
func (d OSDir) List() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// Remove implements Dir.
func (d OSDir) Remove(name string) error {
	if err := os.Remove(d.file(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return syncDir(string(d))
}

// Rename implements Dir.
func (d OSDir) Rename(from, to string) error {
	if err := os.Rename(d.file(from), d.file(to)); err != nil {
		return err
	}
	return syncDir(string(d))
}

// Create implements Dir.
func (d OSDir) Create(name string, r io.Reader) error {
	f, err := os.OpenFile(d.file(name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{r}, make([]byte, 1<<20))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return syncDir(string(d))
}

// Open implements Dir. It reads what is on the disk, not what is in memory.
func (d OSDir) Open(name string) (io.ReadCloser, error) {
	f, err := os.Open(d.file(name))
	if err != nil {
		return nil, err
	}
	if err := dropCache(f); err != nil {
		return nil, errors.Join(fmt.Errorf("drop cached pages: %w", err), f.Close())
	}
	return f, nil
}

func (d OSDir) file(name string) string { return filepath.Join(string(d), name) }
