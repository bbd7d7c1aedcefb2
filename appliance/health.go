package appliance

import (
	"patronus/appliance/console"
	"patronus/dashboard/control"
	"patronus/netstack/path"
)

// healthOf is what a rollout must not make worse, of all that sites last said.
func healthOf(c *console.Console) (h control.Health) {
	states, _ := c.States()
	var lost float64
	measured := 0
	for _, st := range states {
		for i := range st.Paths {
			p := &st.Paths[i]
			if p.State == path.Down.String() {
				h.PathsDown++
			}
			if l := float64(p.Metrics.PacketLoss); l == l { // not NaN: it is measured
				lost += l
				measured++
			}
		}
		for _, n := range st.Policies {
			h.Denied += n.Denied
		}
	}
	if measured > 0 {
		h.Loss = lost / float64(measured)
	}
	return h
}
