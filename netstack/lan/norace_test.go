//go:build !race

package lan

const raceEnabled = false

// transferSize is what a test moves by TCP, bytes.
const transferSize = 50 << 20
