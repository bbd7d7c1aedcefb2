package policy

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"patronus/configs"
)

// BenchmarkEvaluateWhileChanging reports the median and the 99th percentile of
// a verdict's time, by batches of 16, alone and while 100 labels a second
// change. The compiler has a goroutine and, if there is one, a processor of its
// own, as in an appliance.
func BenchmarkEvaluateWhileChanging(b *testing.B) {
	in := bigWorld(100, 10000, 1000)
	keys := bigFlows(4096, 10000)
	for _, rate := range []int{0, 100} {
		b.Run(fmt.Sprintf("changes=%d", rate), func(b *testing.B) {
			c := NewCompiler()
			first, err := c.Apply(Change{Input: in})
			if err != nil {
				b.Fatal(err)
			}
			var current atomic.Pointer[Ruleset]
			current.Store(first)
			ctx, stop := context.WithCancel(b.Context())
			var changing sync.WaitGroup
			if rate > 0 {
				changing.Go(func() { change(ctx, b, c, &current, in, time.Second/time.Duration(rate)) })
			}
			const batch = 16
			samples := make([]float64, 0, b.N/batch+1)
			for i := 0; b.Loop(); i += batch {
				r := current.Load()
				start := time.Now()
				for k := range batch {
					r.Evaluate(&keys[(i+k)&4095])
				}
				samples = append(samples, float64(time.Since(start))/batch)
			}
			stop()
			changing.Wait()
			slices.Sort(samples)
			b.ReportMetric(samples[len(samples)/2], "p50-ns/verdict")
			b.ReportMetric(samples[len(samples)*99/100], "p99-ns/verdict")
		})
	}
}

// change relabels one endpoint after the other until ctx ends.
func change(ctx context.Context, b *testing.B, c *Compiler, current *atomic.Pointer[Ruleset], in Input, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		e := in.Endpoints[i%len(in.Endpoints)]
		e.Labels = map[string]string{"app": fmt.Sprintf("app%d", i%20), "tier": "back", "version": fmt.Sprintf("x%d", i%3)}
		r, err := c.Apply(Change{Input: Input{Endpoints: []configs.HostEndpoint{e}}})
		if err != nil {
			b.Error(err)
			return
		}
		current.Store(r)
	}
}
