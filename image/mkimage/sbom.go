package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// bom is a CycloneDX 1.6 bill of materials, as far as we fill it in.
type bom struct {
	Format      string      `json:"bomFormat"`
	SpecVersion string      `json:"specVersion"`
	Serial      string      `json:"serialNumber"`
	Version     int         `json:"version"`
	Metadata    bomMetadata `json:"metadata"`
	Components  []component `json:"components"`
}

type bomMetadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Type    string    `json:"type"`
	Ref     string    `json:"bom-ref"`
	Name    string    `json:"name"`
	Version string    `json:"version"`
	PURL    string    `json:"purl,omitempty"`
	Hashes  []bomHash `json:"hashes,omitempty"`
}

type bomHash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

// writeSBOM lists what an image consists of: the modules that are linked into
// the binary, as the binary says itself, and the packages of Debian.
func writeSBOM(out, binaryFile, version string, debs []deb, arch string, epoch int64) error {
	info, err := buildinfo.ReadFile(binaryFile)
	if err != nil {
		return fmt.Errorf("bill of materials: %w", err)
	}
	data, err := os.ReadFile(binaryFile)
	if err != nil {
		return fmt.Errorf("bill of materials: %w", err)
	}
	sum := sha256.Sum256(data)
	self := hex.EncodeToString(sum[:])
	b := bom{
		Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Serial: fmt.Sprintf("urn:uuid:%s-%s-5%s-8%s-%s", self[:8], self[8:12], self[13:16], self[17:20], self[20:32]),
		Metadata: bomMetadata{
			Timestamp: time.Unix(epoch, 0).UTC().Format(time.RFC3339),
			Component: component{Type: "application", Ref: "patronus", Name: "patronus", Version: version, Hashes: []bomHash{{"SHA-256", self}}},
		},
		Components: []component{{
			Type: "library", Ref: "pkg:golang/std@" + info.GoVersion, Name: "std", Version: info.GoVersion,
			PURL: "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go"),
		}},
	}
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		purl := "pkg:golang/" + d.Path + "@" + d.Version
		b.Components = append(b.Components, component{Type: "library", Ref: purl, Name: d.Path, Version: d.Version, PURL: purl})
	}
	for _, d := range debs {
		purl := fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s", d.name, strings.ReplaceAll(d.version, "~", "%7E"), arch)
		b.Components = append(b.Components, component{
			Type: "operating-system", Ref: purl, Name: d.name, Version: d.version, PURL: purl, Hashes: []bomHash{{"SHA-256", d.sha256}},
		})
	}
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return fmt.Errorf("bill of materials: %w", err)
	}
	if err := os.WriteFile(out, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("bill of materials: %w", err)
	}
	return nil
}
