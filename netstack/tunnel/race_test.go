//go:build race

package tunnel

// raceEnabled: the race detector makes sync.Pool drop things on purpose.
const raceEnabled = true
