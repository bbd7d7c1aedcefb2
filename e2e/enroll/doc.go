// Package enroll owns the tests in which new appliances become sites: whole
// appliances with their files, on sockets of this machine's loopback.
package enroll
