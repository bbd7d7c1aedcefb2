package release

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// The names of a release's checksums and their signature (hex).
const (
	SumsFile      = "SHA256SUMS"
	SignatureFile = "SHA256SUMS.sig"
	sumsContext   = "patronus-sums-v1\x00"
)

// WriteSums writes the checksums of files in dir, in the format of sha256sum,
// and their signature.
func WriteSums(dir string, names []string, k *Key) error {
	var text bytes.Buffer
	for _, name := range names {
		sum, err := hashFile(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("checksums: %w", err)
		}
		fmt.Fprintf(&text, "%x  %s\n", sum, name)
	}
	if err := os.WriteFile(filepath.Join(dir, SumsFile), text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("checksums: %w", err)
	}
	signature := hex.EncodeToString(k.sign(sumsContext, text.Bytes())) + "\n"
	if err := os.WriteFile(filepath.Join(dir, SignatureFile), []byte(signature), 0o644); err != nil {
		return fmt.Errorf("checksums: %w", err)
	}
	return nil
}

// VerifySums verifies the signature and every file of a release, and returns
// the names that are as signed.
func VerifySums(dir string, trusted Keys) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(dir, SumsFile))
	if err != nil {
		return nil, fmt.Errorf("checksums: %w", err)
	}
	encoded, err := os.ReadFile(filepath.Join(dir, SignatureFile))
	if err != nil {
		return nil, fmt.Errorf("checksums: %w", err)
	}
	signature, err := hex.DecodeString(strings.TrimSpace(string(encoded)))
	if err != nil || !trusted.verify(sumsContext, text, signature) {
		return nil, fmt.Errorf("%s: %w", SignatureFile, ErrUnsigned)
	}
	var good []string
	var bad error
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		want, name, ok := strings.Cut(lines.Text(), "  ")
		if !ok || name != filepath.Base(name) {
			return nil, fmt.Errorf("%s: %q: not a line of sha256sum", SumsFile, lines.Text())
		}
		sum, err := hashFile(filepath.Join(dir, name))
		switch {
		case err != nil:
			bad = errors.Join(bad, err)
		case hex.EncodeToString(sum) != want:
			bad = errors.Join(bad, fmt.Errorf("%s: %w", name, ErrDigest))
		default:
			good = append(good, name)
		}
	}
	return good, bad
}

func hashFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}
