// Package provision owns where an appliance finds what its owner wants of it
// at a first boot: a configuration or an enrollment token, and the addresses of
// its interfaces. The order is
//
//  1. files in patronus/ on the EFI partition
//  2. a cloud-init NoCloud volume (label cidata)
//  3. credentials from the machine: SMBIOS type 11, qemu's fw_cfg
//  4. the kernel's command line
//
// and the first that has a configuration or a token is taken. It parses what
// others have read; it mounts nothing and keeps nothing. Values are immutable.
package provision
