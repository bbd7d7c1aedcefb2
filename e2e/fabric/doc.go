// Package fabric owns the tests of a whole fabric in one process: the lab's
// appliances with their real UDP sockets, their WireGuard devices and the
// hosts behind them. It has no code of its own.
package fabric
