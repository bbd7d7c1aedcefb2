package policy

import "patronus/netstack/packet"

// Labels are the labels of the endpoint that an address belongs to, nil if
// there is none: what decision records keep. They are shared; do not change
// them.
func (r *Ruleset) Labels(a *packet.Addr) map[string]string {
	l := r.locate(a)
	if l.endpoint == nobody || r.endpoints[l.endpoint] == nil {
		return nil
	}
	return r.endpoints[l.endpoint].Labels
}
