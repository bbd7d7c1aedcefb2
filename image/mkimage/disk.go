package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/klauspost/compress/zstd"

	"patronus/image/fat"
	"patronus/image/gpt"
)

// The disk: both slots are files of the EFI partition, and the data partition
// is grown to the end of the disk at the first boot.
const (
	mib      = 1 << 20
	espStart = 1 * mib
	espSize  = 272 * mib
	dataSize = 64 * mib
	diskSize = espStart + espSize + dataSize + 1*mib

	// Fixed, so that two builds are equal. Nothing tells appliances apart by them.
	diskID   = "7a3f1d52-94c6-4b0e-8a57-5061746f0001"
	espID    = "7a3f1d52-94c6-4b0e-8a57-5061746f0002"
	dataID   = "7a3f1d52-94c6-4b0e-8a57-5061746f0003"
	dataFSID = "7a3f1d52-94c6-4b0e-8a57-5061746f0004"
	espType  = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	dataType = "0fc63daf-8483-4772-8e79-3d69d8477de4"
)

const espReadme = `This is the EFI partition of a Patronus appliance.

Files in this directory (patronus) are read at every boot:
  patronus.yaml   the configuration; "patronus config reference" prints a commented one
  network.yaml    addresses of the interfaces, where DHCP and SLAAC do not give them
  token           an enrollment token; it is taken away once it is read
`

// writeDisk writes the raw disk image.
func writeDisk(out string, files []fat.File, epoch int64) error {
	if err := os.Remove(out); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("disk: %w", err)
	}
	f, err := os.OpenFile(out, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := f.Truncate(diskSize); err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	table, err := diskTable()
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	if err := fat.Write(f, espStart, espSize, "PATRONUS", time.Unix(epoch, 0), files); err != nil {
		return fmt.Errorf("EFI partition: %w", err)
	}
	if err := writeData(f, out+".ext4", epoch); err != nil {
		return fmt.Errorf("data partition: %w", err)
	}
	_, err = f.WriteAt(table.Head(), 0)
	_, tailErr := f.WriteAt(table.Tail(), diskSize-gpt.TailSectors*gpt.SectorSize)
	if err := errors.Join(err, tailErr, f.Close()); err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	return nil
}

func diskTable() (*gpt.Table, error) {
	var ids [5]gpt.GUID
	for i, text := range []string{diskID, espType, espID, dataType, dataID} {
		g, err := gpt.ParseGUID(text)
		if err != nil {
			return nil, err
		}
		ids[i] = g
	}
	sector := func(at int64) uint64 { return uint64(at / gpt.SectorSize) }
	return &gpt.Table{Disk: ids[0], Sectors: sector(diskSize), Partitions: []gpt.Partition{
		{Type: ids[1], ID: ids[2], First: sector(espStart), Last: sector(espStart+espSize) - 1, Name: "patronus-esp"},
		{Type: ids[3], ID: ids[4], First: sector(espStart + espSize), Last: sector(espStart+espSize+dataSize) - 1, Name: "patronus-data"},
	}}, nil
}

// writeData makes an empty ext4 with fixed identifiers and times.
func writeData(disk *os.File, temp string, epoch int64) error {
	f, err := os.Create(temp)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp) }()
	defer func() { _ = f.Close() }()
	if err := f.Truncate(dataSize); err != nil {
		return err
	}
	mkfs := "mkfs.ext4"
	if _, err := exec.LookPath(mkfs); err != nil {
		mkfs = "/usr/sbin/mkfs.ext4"
	}
	cmd := exec.Command(mkfs, "-q", "-F", "-L", "patronus-data", "-U", dataFSID, "-m", "0", "-b", "4096", "-J", "size=8",
		"-E", "hash_seed="+dataFSID+",lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,resize=16777216",
		"-O", "^metadata_csum_seed,^orphan_file,64bit,metadata_csum", temp)
	cmd.Env = append(os.Environ(), "E2FSPROGS_FAKE_TIME="+strconv.FormatInt(epoch, 10), "MKE2FS_DEVICE_SECTSIZE=512")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	_, err = copySparse(disk, f, espStart+espSize)
	return err
}

// copySparse writes what is not zero of r to w at an offset.
func copySparse(w io.WriterAt, r io.Reader, at int64) (written int64, err error) {
	block, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(r, block)
		if n > 0 && string(block[:n]) != string(zero[:n]) {
			if _, err := w.WriteAt(block[:n], at); err != nil {
				return written, err
			}
			written += int64(n)
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return written, nil
		}
		if err != nil {
			return written, err
		}
	}
}

// compressFile writes file.zst beside file.
func compressFile(name string) (err error) {
	in, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(name + ".zst")
	if err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w, err := zstd.NewWriter(out, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	if _, err := io.Copy(w, in); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	return nil
}

// touch sets a file's time to that of the sources, so that archives of it are
// equal too.
func touch(name string, epoch int64) error {
	t := time.Unix(epoch, 0)
	return os.Chtimes(name, t, t)
}
