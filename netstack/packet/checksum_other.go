//go:build !amd64

package packet

func sumWords(b []byte) uint64 { return sumGeneric(b) }
