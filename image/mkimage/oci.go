package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/klauspost/compress/gzip"
)

// The user that the container runs as; nobody else needs to exist in it.
const containerUser = "65532:65532"

// descriptor is what an OCI image says of one of its parts (OCI image
// specification 1.1, descriptor.md).
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type containerConfig struct {
	User         string              `json:"User"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts"`
	Env          []string            `json:"Env"`
	Entrypoint   []string            `json:"Entrypoint"`
	Cmd          []string            `json:"Cmd"`
	Volumes      map[string]struct{} `json:"Volumes"`
	Labels       map[string]string   `json:"Labels"`
	StopSignal   string              `json:"StopSignal"`
}

// writeOCI writes an image archive that podman, skopeo and docker load: an OCI
// layout, with the manifest.json that older dockers look for.
func writeOCI(out string, binary []byte, arch, version string, epoch int64) error {
	at := time.Unix(epoch, 0).UTC()
	layer, diffID, err := containerLayer(binary, at)
	if err != nil {
		return fmt.Errorf("container: %w", err)
	}
	blobs := map[string][]byte{}
	add := func(mediaType string, data []byte) descriptor {
		sum := sha256.Sum256(data)
		digest := hex.EncodeToString(sum[:])
		blobs["blobs/sha256/"+digest] = data
		return descriptor{MediaType: mediaType, Digest: "sha256:" + digest, Size: len(data)}
	}
	labels := map[string]string{"org.opencontainers.image.title": "patronus", "org.opencontainers.image.version": version}
	config, err := json.Marshal(map[string]any{
		"created": at.Format(time.RFC3339), "architecture": arch, "os": "linux",
		"config": containerConfig{
			User: containerUser, ExposedPorts: map[string]struct{}{"51820/udp": {}}, Env: []string{"PATRONUS_DATA_DIR=/data"},
			Entrypoint: []string{"/patronus"}, Cmd: []string{"run", "--config", "/etc/patronus/patronus.yaml", "--data-dir", "/data"},
			Volumes: map[string]struct{}{"/data": {}}, Labels: labels, StopSignal: "SIGTERM",
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{diffID}},
		"history": []map[string]any{{"created": at.Format(time.RFC3339), "created_by": "mkimage"}},
	})
	if err != nil {
		return fmt.Errorf("container: %w", err)
	}
	configAt := add("application/vnd.oci.image.config.v1+json", config)
	layerAt := add("application/vnd.oci.image.layer.v1.tar+gzip", layer)
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": configAt, "layers": []descriptor{layerAt}, "annotations": labels,
	})
	if err != nil {
		return fmt.Errorf("container: %w", err)
	}
	manifestAt := add("application/vnd.oci.image.manifest.v1+json", manifest)
	manifestAt.Platform = &platform{arch, "linux"}
	manifestAt.Annotations = map[string]string{"org.opencontainers.image.ref.name": "latest", "io.containerd.image.name": "docker.io/library/patronus:latest"}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []descriptor{manifestAt}})
	if err != nil {
		return fmt.Errorf("container: %w", err)
	}
	blob := func(d descriptor) string { return "blobs/sha256/" + d.Digest[len("sha256:"):] }
	docker, err := json.Marshal([]map[string]any{{"Config": blob(configAt), "RepoTags": []string{"patronus:latest"}, "Layers": []string{blob(layerAt)}}})
	if err != nil {
		return fmt.Errorf("container: %w", err)
	}
	blobs["index.json"], blobs["manifest.json"] = index, docker
	blobs["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range sorted(blobs) {
		if err := tarFile(w, &tar.Header{Name: name, Mode: 0o644, ModTime: at}, blobs[name]); err != nil {
			return fmt.Errorf("container: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("container: %w", err)
	}
	if err := os.WriteFile(out, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("container: %w", err)
	}
	return nil
}

// containerLayer is the root file system: the binary, and a directory that its
// user may write.
func containerLayer(binary []byte, at time.Time) (packed []byte, diffID string, err error) {
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	dirs := []tar.Header{
		{Name: "data/", Mode: 0o700, Uid: 65532, Gid: 65532}, {Name: "etc/", Mode: 0o755}, {Name: "etc/patronus/", Mode: 0o755},
	}
	for i := range dirs {
		dirs[i].Typeflag, dirs[i].ModTime = tar.TypeDir, at
		if err := w.WriteHeader(&dirs[i]); err != nil {
			return nil, "", err
		}
	}
	if err := tarFile(w, &tar.Header{
		Name: "patronus", Mode: 0o755, ModTime: at, Format: tar.FormatPAX,
		PAXRecords: map[string]string{"SCHILY.xattr.security.capability": string(permittedCapabilities())},
	}, binary); err != nil {
		return nil, "", err
	}
	if err := w.Close(); err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(plain.Bytes())
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, "", err
	}
	if _, err := z.Write(plain.Bytes()); err != nil {
		return nil, "", err
	}
	if err := z.Close(); err != nil {
		return nil, "", err
	}
	return b.Bytes(), "sha256:" + hex.EncodeToString(sum[:]), nil
}

// permittedCapabilities are the file capabilities of the binary (struct
// vfs_cap_data, version 2): a user that is not root may take NET_ADMIN and
// NET_RAW, as far as the container was given them. They are permitted and not
// effective, because a file with effective ones cannot be started at all where
// the container lacks one.
func permittedCapabilities() []byte {
	const capNetAdmin, capNetRaw, version2 = 12, 13, 0x02000000
	b := make([]byte, 20)
	binary.LittleEndian.PutUint32(b, version2)
	binary.LittleEndian.PutUint32(b[4:], 1<<capNetAdmin|1<<capNetRaw)
	return b
}

func tarFile(w *tar.Writer, h *tar.Header, data []byte) error {
	h.Typeflag, h.Size = tar.TypeReg, int64(len(data))
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}
