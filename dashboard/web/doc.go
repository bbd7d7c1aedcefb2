// Package web owns the files of the interface: pages, elements and styles, the
// libraries that they use, and how all of it goes to a browser.
//
// It knows no API and no user: what a person may see is decided where the data
// is. It answers from memory; the files are made by `make web` (package pack
// says how) and compiled into the binary.
//
//	src/*.js, handbook/*.md, npm libraries --make web--> dist/ (hashed, packed by brotli and gzip) --embed--> Pages
//
// All files of one build have a URL that names the build by its content, so
// that modules import each other by plain relative paths and a browser may keep
// them for ever. A Pages is immutable and safe for concurrent use.
package web
