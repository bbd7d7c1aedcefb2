// Package gpt owns the partition table of the appliance's disk (UEFI 2.10,
// chapter 5): it writes one, reads one, and moves the end of the last partition
// to the end of a disk that is larger than the image was.
//
// It touches no disk: tables are bytes and values.
package gpt
