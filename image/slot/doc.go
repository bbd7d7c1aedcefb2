// Package slot owns the two slots of an appliance: the images on its EFI
// partition, which of them starts, and how an update is put into the other one.
//
// A slot is a file in EFI/Linux. Its name carries the sequence number and, as
// long as it is on trial, how often it may still be tried (the boot counting of
// systemd-boot and the Boot Loader Specification):
//
//	patronus-1795573384.efi        runs well, tried first unless a newer one may be
//	patronus-1795600000+3.efi      new: three tries
//	patronus-1795600000+2-1.efi    being tried for the first time
//	patronus-1795600000+0-3.efi    has failed three times; is tried no more
//
// The one rule: the file of an image that ran well is never written, renamed or
// removed while it is the newest that did. So whatever is cut off in the middle
// of an update, something good is left to start.
//
//	install:  remove the other slot -> write "new" -> read it back -> rename to +3
//	restart:  the loader counts down; a crash, a hang (watchdog) or a power cut spends a try
//	judge:    healthy for a while -> bless: rename to no counter; else -> +0, restart
//
// Names, plans and judgements are pure; [Dir] is the file system. Nothing here
// is safe for concurrent use: one update runs at a time.
package slot
