//go:build race

package configs

const raceEnabled = true
