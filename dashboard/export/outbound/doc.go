// Package outbound owns how the dashboard reaches servers that an operator
// names by URL or address: which addresses may be dialled, TLS, and secrets
// that are read from files.
//
// It knows no protocol above TLS. Everything here is safe for concurrent use.
package outbound
