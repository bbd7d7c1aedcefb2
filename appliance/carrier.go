package appliance

import (
	"context"
	"errors"
	"fmt"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"patronus/netstack"
)

// watchCarrier tells the engine at once when the interface of an uplink loses
// or regains its link (RFC 2863 operational state, by rtnetlink), instead of
// leaving it to the probes. It needs no privilege.
func watchCarrier(ctx context.Context, e *netstack.Engine) error {
	events, err := rtnetlink.Dial(&netlink.Config{Groups: unix.RTMGRP_LINK})
	if err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	defer events.Close()
	stop := context.AfterFunc(ctx, func() { events.Close() })
	defer stop()
	query, err := rtnetlink.Dial(nil)
	if err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	defer query.Close()
	// Subscribed first, listed second: nothing falls in between.
	links, err := query.Link.List()
	if err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	state := make(map[string]bool)
	for i := range links {
		note(e, state, &links[i], false)
	}
	for {
		messages, _, err := events.Receive()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if errors.Is(err, unix.ENOBUFS) {
				continue // some were lost; the next one corrects the state
			}
			return fmt.Errorf("watch links: %w", err)
		}
		for _, m := range messages {
			if link, ok := m.(*rtnetlink.LinkMessage); ok {
				note(e, state, link, true)
			}
		}
	}
}

// note passes a change of one link on. Links that were never seen up do not
// matter before they are.
func note(e *netstack.Engine, state map[string]bool, link *rtnetlink.LinkMessage, changed bool) {
	if link.Attributes == nil || link.Attributes.Name == "" {
		return
	}
	name := link.Attributes.Name
	up := link.Flags&unix.IFF_UP != 0 && link.Flags&unix.IFF_RUNNING != 0
	if before, known := state[name]; known && before == up {
		return
	}
	state[name] = up
	if changed || !up {
		for _, uplink := range e.UplinksOn(name) {
			e.SetCarrier(uplink, up)
		}
	}
}
