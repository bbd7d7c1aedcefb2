package tunnel

import "time"

// keepInterval is how often Run looks at blocked peers, as long as there are any.
const keepInterval = 500 * time.Millisecond

// keep looks after the peers that have packets which the device may not have
// yet: it expires what waited too long, asks for handshakes, and finds out
// about sessions that nobody else told the queue of. It reports whether it
// wants to be called again soon.
func (t *Tunnel) keep() bool {
	shut, again := t.queue.tend(t.o.Now(), time.Now().UnixNano())
	for _, p := range shut {
		// The device limits initiations to one in 5 s itself, and repeats one
		// that was lost. An error (no endpoint yet) has no other taker: the
		// packets expire and are counted.
		_ = p.wg.SendHandshakeInitiation(false)
	}
	if len(shut) > 0 {
		t.learnSessions(shut)
	}
	return again
}

// learnSessions asks the device about peers that are not open. What the device
// held for such a peer when the handshake ended has been sent or dropped.
func (t *Tunnel) learnSessions(shut []*Peer) {
	status, err := t.readDevice()
	if err != nil {
		return // closing
	}
	for _, p := range shut {
		if at := status[p.key].LastHandshakeAt; !at.IsZero() && t.queue.newer(p, at.UnixNano()) {
			t.queue.confirmed(p, true)
		}
	}
}

// newer reports whether a handshake that ended at wall clock time at, ns, came
// after the peer was found to have no session.
func (q *queue) newer(p *Peer, at int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !p.flight.open && at > p.flight.shutAt
}

// tend visits the blocked peers: it drops the packets that waited for longer
// than sessionWait without a session, and returns the peers that have none.
// again says that some peer is still blocked.
func (q *queue) tend(now, wall int64) (shut []*Peer, again bool) {
	q.reading.Lock()
	defer q.reading.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	blocked := q.blocked
	q.blocked = q.blocked[:0]
	for _, p := range blocked {
		f := &p.flight
		f.noted = false
		if !f.blocked || f.removed {
			continue
		}
		if f.open && f.packets > 0 && now-f.movedAt > int64(stallAfter) {
			f.open = false
			f.shutAt = wall
			p.heard.Store(false)
		}
		waiting := 0
		for band := range f.lanes {
			l := &f.lanes[band]
			if !f.open {
				n := q.drop(l, func(e *entry) bool { return now-e.at > int64(sessionWait) })
				p.count.noSession.Add(n)
			}
			waiting += l.ring.n
		}
		switch {
		case waiting == 0:
			q.clear(f)
			continue
		case q.allowance(f) > 0:
			q.unblock(p)
			continue
		}
		f.noted = true
		q.blocked = append(q.blocked, p)
		if !f.open {
			shut = append(shut, p)
		}
	}
	clear(blocked[len(q.blocked):])
	return shut, len(q.blocked) > 0
}
