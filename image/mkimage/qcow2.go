package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	clusterBits = 16
	cluster     = 1 << clusterBits
)

// writeQCOW2 writes a raw disk image as qcow2 version 3 (qemu,
// docs/interop/qcow2.txt): what is zero takes no room.
//
//	cluster 0 header | 1 refcount table | 2 refcount block | 3 L1 | L2 tables | data
func writeQCOW2(out, raw string) (err error) {
	in, err := os.Open(raw)
	if err != nil {
		return fmt.Errorf("qcow2: %w", err)
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return fmt.Errorf("qcow2: %w", err)
	}
	const perL2 = cluster / 8
	clusters := (info.Size() + cluster - 1) / cluster
	tables := (clusters + perL2 - 1) / perL2
	if 4+tables+clusters > cluster/2 {
		return errors.New("qcow2: the disk is larger than one block of reference counts describes")
	}
	f, err := os.Create(out)
	if err != nil {
		return fmt.Errorf("qcow2: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()

	be := binary.BigEndian
	l2 := make([]byte, tables*cluster)
	next := 4 + tables
	block, zero := make([]byte, cluster), make([]byte, cluster)
	for i := range clusters {
		clear(block)
		if _, err := in.ReadAt(block, i*cluster); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("qcow2: %w", err)
		}
		if bytes.Equal(block, zero) {
			continue
		}
		if _, err := f.WriteAt(block, next*cluster); err != nil {
			return fmt.Errorf("qcow2: %w", err)
		}
		be.PutUint64(l2[i*8:], uint64(next*cluster)|1<<63)
		next++
	}
	head := make([]byte, 4*cluster)
	copy(head, "QFI\xfb")
	be.PutUint32(head[4:], 3)
	be.PutUint32(head[20:], clusterBits)
	be.PutUint64(head[24:], uint64(info.Size()))
	be.PutUint32(head[36:], uint32(tables))
	be.PutUint64(head[40:], 3*cluster) // L1
	be.PutUint64(head[48:], 1*cluster) // reference counts
	be.PutUint32(head[56:], 1)
	be.PutUint32(head[96:], 4) // 16-bit counts
	be.PutUint32(head[100:], 104)
	be.PutUint64(head[cluster:], 2*cluster)
	for i := range next {
		be.PutUint16(head[2*cluster+i*2:], 1)
	}
	for i := range tables {
		be.PutUint64(head[3*cluster+i*8:], uint64((4+i)*cluster)|1<<63)
	}
	_, err = f.WriteAt(head, 0)
	_, err2 := f.WriteAt(l2, 4*cluster)
	if err := errors.Join(err, err2); err != nil {
		return fmt.Errorf("qcow2: %w", err)
	}
	return nil
}
