package netstack

import (
	"context"
	"fmt"
	"io"
	"time"

	"patronus/netstack/capture"
	"patronus/netstack/packet"
)

// CaptureOptions say which packets to show, and when to stop. Zero caps mean
// none; the context ends a capture as well.
type CaptureOptions struct {
	// Point is where packets are seen, in the clear: "" for everywhere, "lan"
	// for what hosts of this site send, "wan" for what tunnels deliver, an
	// uplink's name, or a path's id.
	Point    string        `json:"point,omitempty"`
	Filter   string        `json:"filter,omitempty"` // see capture.ParseFilter
	SnapSize int           `json:"snap_size,omitempty"`
	Packets  int           `json:"packets,omitempty"`
	Bytes    int           `json:"bytes,omitempty"`
	Duration time.Duration `json:"duration,omitempty"` // ns
}

// Capture writes the packets that pass to w as pcapng, as they came in and with
// what was decided about them as the interface's name: "to_wan
// hq.wan0~east.wan0", "from_wan dropped denied". Superpackets stay whole.
func (e *Engine) Capture(ctx context.Context, o CaptureOptions, w io.Writer) (capture.Result, error) {
	filter, err := capture.ParseFilter(o.Filter)
	if err != nil {
		return capture.Result{}, err
	}
	if !e.capturePoint(o.Point) {
		return capture.Result{}, fmt.Errorf("point %q: is none of lan, wan, an uplink of this site, one of its paths", o.Point)
	}
	if o.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Duration)
		defer cancel()
	}
	tap := capture.New(capture.Options{Point: o.Point, Filter: filter, SnapSize: o.SnapSize, Packets: o.Packets, Bytes: o.Bytes})
	remove, err := e.taps.Add(tap)
	if err != nil {
		return capture.Result{}, err
	}
	defer remove()
	return tap.Run(ctx, w)
}

// capturePoint reports whether there is a point of that name.
func (e *Engine) capturePoint(name string) bool {
	switch name {
	case "", pointLAN, pointWAN:
		return true
	}
	for _, p := range *e.pathList.Load() {
		if p != nil && (name == string(p.id) || name == p.uplink.config.Name) {
			return true
		}
	}
	return false
}

const (
	pointLAN = "lan"
	pointWAN = "wan"
)

// show offers a packet to the taps, as it came in. from is the path that it
// came through, nil for a LAN port or a device. Borrowed: b.
func show(taps []*capture.Tap, dir Direction, from *pathState, in *packet.Info, b []byte, d *decision) {
	for _, t := range taps {
		if !t.Wants(in) {
			continue
		}
		via := d.path
		if dir == FromWAN {
			via = from
		}
		if !shown(t.Point(), dir, via) {
			continue
		}
		t.Offer(b, captureName(dir, via, d))
	}
}

func shown(point string, dir Direction, via *pathState) bool {
	switch point {
	case "":
		return true
	case pointLAN:
		return dir == ToWAN
	case pointWAN:
		return dir == FromWAN
	}
	return via != nil && (point == string(via.id) || point == via.uplink.config.Name)
}

// captureName says what was decided.
func captureName(dir Direction, via *pathState, d *decision) string {
	name := dir.String()
	switch d.verdict {
	case Drop:
		return name + " dropped " + d.reason.String()
	case Reject:
		return name + " rejected " + d.reason.String()
	case Deliver:
		return name + " host"
	}
	switch {
	case via != nil:
		return name + " " + string(via.id)
	case d.to.kind == routeDevice || dir == FromWAN:
		return name + " device"
	default:
		return name + " lan"
	}
}
