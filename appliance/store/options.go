package store

import (
	"log/slog"
	"time"
)

// Options are how a store is kept. The zero value is a small appliance's.
type Options struct {
	// Site is the site that the store belongs to. Of other sites, [Store.Append]
	// keeps samples, with their times as they are, and events; their flow records
	// and states come by [Store.Import]. They do not enter the change feed.
	// Empty: every site is its own.
	Site string
	// Dashboard spends memory for speed; false is the profile for a machine of
	// 512 MB.
	Dashboard bool
	// Keep is how long each tier is kept.
	Keep Keep
	// Reserve is how many bytes of the disk stay free; 0: computed from the
	// profile and the size of the disk.
	Reserve uint64
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Free is how many bytes of the file system of a directory are free and how
	// many there are; nil: statfs(2).
	Free func(dir string) (free, size uint64, err error)
	// Forward, if there is one, gets all samples, flow records and events that are
	// new, in the path of [Store.Append] and [Store.Import].
	Forward Forward
	// Log is where the store reports; nil: nowhere.
	Log *slog.Logger
}

// Keep is retention. Zero fields take the profile's figures.
type Keep struct {
	Raw, Minute, Hour time.Duration
	Flows             time.Duration // flow records with their decisions
	Totals            time.Duration // per-minute totals of flows
	Events            time.Duration
	States            time.Duration
	Sketches          time.Duration // of a dashboard
}

const day = 24 * time.Hour

// tier is how long a tier is kept.
func (k *Keep) tier(t Tier) time.Duration {
	switch t {
	case Minute:
		return k.Minute
	case Hour:
		return k.Hour
	default:
		return k.Raw
	}
}

func (o Options) withDefaults() Options {
	k := &o.Keep
	raw, minute := 90*day, 90*day
	if o.Dashboard {
		raw, minute = 48*time.Hour, 14*day
	}
	for _, d := range [...]struct {
		field *time.Duration
		value time.Duration
	}{
		{&k.Raw, raw},
		{&k.Minute, minute},
		{&k.Hour, 90 * day},
		{&k.Flows, 30 * day},
		{&k.Totals, 90 * day},
		{&k.Events, 90 * day},
		{&k.States, 90 * day},
		{&k.Sketches, 90 * day},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}
