// Package image owns the tests of what make image builds: the disk in an
// emulator with UEFI firmware, and the container with crun.
//
// Two virtual machines hang on segments that the test process makes: it is the
// switch, the provider with its DHCP server, the web server with updates, and
// every host on the LANs. Nothing needs root or a kernel module but crun. The
// tests run in the long set only (PATRONUS_LONG), one pair of emulators at a
// time, each with a limit.
//
//	host 10.1.0.10 --lan-- [ VM hq ] --wan--+--wan-- [ VM east ] --lan-- host 10.2.0.10
//	                                        |
//	                  DHCP, web server 192.0.2.1 (this process)
package image
