//go:build race

package lan

const raceEnabled = true

// transferSize is what a test moves by TCP, bytes: checksums are slow here.
const transferSize = 8 << 20
