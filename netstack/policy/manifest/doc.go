// Package manifest owns the written form of Kubernetes objects: it reads YAML
// and JSON strictly, with the position of everything, into typed values.
//
// It reads the part of YAML 1.1 that manifests are written in, exactly as the
// API server's own reader does (a differential test holds it to that), and
// refuses what a policy has no use for: anchors, aliases, tags, merge keys,
// directives, complex keys. Its memory and time are linear in the input, which
// is bounded in size and depth before anything is built. It knows no object's
// meaning: package policy validates.
//
// Documents and nodes are immutable once parsed and may be shared.
package manifest
