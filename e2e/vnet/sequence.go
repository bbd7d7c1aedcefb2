package vnet

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteSequence draws the last n datagrams that the network remembers as a
// mermaid sequence diagram (mermaid.js.org): what was lost ends in a cross with
// the reason, runs of equal messages are one arrow. Times are since the network
// was made. All of them are drawn if last is 0.
func (n *Network) WriteSequence(w io.Writer, last int) error {
	recs := n.Records()
	if last > 0 && len(recs) > last {
		recs = recs[len(recs)-last:]
	}
	bw := bufio.NewWriter(w)
	fmt.Fprintln(bw, "sequenceDiagram")
	ids := participants(bw, recs)
	for i := 0; i < len(recs); {
		run := 1
		for i+run < len(recs) && sameArrow(&recs[i], &recs[i+run]) {
			run++
		}
		drawArrow(bw, ids, recs[i:i+run], n.start)
		i += run
	}
	if err := bw.Flush(); err != nil {
		return fmt.Errorf("sequence picture: %w", err)
	}
	return nil
}

// target is the lane that an arrow ends in.
func (r *Record) target() string {
	if r.To != "" {
		return r.To
	}
	return r.Dst.Addr().String()
}

// participants declares a lane for each NIC in the order of appearance. Mermaid
// wants identifiers without dots and colons.
func participants(w io.Writer, recs []Record) map[string]string {
	// An address whose owner is known from another record shares its lane.
	owner := make(map[string]string)
	for i := range recs {
		if r := &recs[i]; r.To != "" {
			owner[r.Dst.Addr().String()] = r.To
		}
		owner[recs[i].Src.Addr().String()] = recs[i].From
	}
	ids := make(map[string]string)
	declare := func(name string) {
		lane := name
		if o := owner[name]; o != "" {
			lane = o
		}
		if ids[lane] == "" {
			ids[lane] = fmt.Sprintf("p%d", len(ids))
			fmt.Fprintf(w, "    participant %s as %s\n", ids[lane], lane)
		}
		ids[name] = ids[lane]
	}
	for i := range recs {
		declare(recs[i].From)
		declare(recs[i].target())
	}
	return ids
}

func sameArrow(a, b *Record) bool {
	return a.From == b.From && a.target() == b.target() && a.Message == b.Message &&
		a.Outcome == b.Outcome && a.Src == b.Src && a.Message != Initiation && a.Message != Response
}

func drawArrow(w io.Writer, ids map[string]string, run []Record, start time.Time) {
	r := &run[0]
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s %d B", ms(r.At.Sub(start)), r.Message, r.Size)
	if len(run) > 1 {
		fmt.Fprintf(&text, " (%d times until %s)", len(run), ms(run[len(run)-1].At.Sub(start)))
	}
	arrow := "->>"
	switch r.Outcome {
	case Delivered:
		fmt.Fprintf(&text, " +%s", ms(r.DoneAt.Sub(r.At)))
	case InFlight:
		arrow = "--)"
		text.WriteString(" in flight")
	default:
		arrow = "-x"
		fmt.Fprintf(&text, " DROPPED, %s", r.Outcome)
	}
	fmt.Fprintf(w, "    %s%s%s: %s\n", ids[r.From], arrow, ids[r.target()], &text)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.3f ms", float64(d)/float64(time.Millisecond)) }
