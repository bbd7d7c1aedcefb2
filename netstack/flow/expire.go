package flow

// Expire ends flows that were silent for longer than their state allows. It
// looks at about budget flows, going on where the last call stopped, and at no
// flow twice. Calls may overlap.
func (t *Table) Expire(now int64, budget int) {
	for range t.buckets {
		if budget <= 0 {
			return
		}
		at := (t.cursor.Add(1) - 1) & t.mask
		b := &t.buckets[at]
		budget-- // an empty bucket costs too
		for f := range b.all() {
			budget--
			if t.silent(f, now) {
				t.expire(f, now)
			}
		}
	}
}

// silent reports whether f is past its time-out.
func (t *Table) silent(f *Flow, now int64) bool {
	return now-f.seen.Load() > t.idleOf(f)
}

func (t *Table) idleOf(f *Flow) int64 {
	if icmp(f.key.Proto) {
		return t.icmpIdle
	}
	return t.idle[f.State()]
}

// expire ends f if it is still there and still silent.
func (t *Table) expire(f *Flow, now int64) {
	sh := &t.shards[f.loc>>3>>t.shardShift]
	sh.mu.Lock()
	gone := t.buckets[f.loc>>3].flows[f.loc&7].Load() == f && t.silent(f, now)
	if gone {
		t.unlink(f)
	}
	sh.mu.Unlock()
	if gone {
		t.live.Add(-1)
		t.end(f, Idle)
	}
}
