package configs

import (
	"errors"
	"os"
	"path/filepath"
)

// ReplaceFile puts text (mode 0600) in the place of file so that after a crash at any
// moment the file is the old one or the new one, never a mixture: the new text
// is on disk before it gets the name, and the name before success is told.
func ReplaceFile(file string, text []byte) error {
	temp := file + tempSuffix
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := writeSync(f, text); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, file); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(file)
}

const tempSuffix = ".tmp"

// writeSync writes, flushes to the disk and closes.
func writeSync(f *os.File, text []byte) error {
	_, err := f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDir makes the entry of file in its directory durable.
func syncDir(file string) error {
	d, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
