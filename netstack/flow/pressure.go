package flow

// sampleSize is how many flows compete when one has to go. Each costs one
// cache miss; 16 come close to the oldest of all (Redis' approximated LRU
// takes 5 to 10). If by the rule a flow that is not established has to go and
// there is none among them, the search goes on for up to sampleMost flows. The
// hand leaves stretches without such flows behind, so a few samples in a
// thousand still have none when they hold just their quarter.
const (
	sampleSize = 16
	sampleMost = 64
)

// reserve takes a place for one flow, unless the table is full.
func (t *Table) reserve() bool {
	for {
		n := t.live.Load()
		if n >= t.max {
			return false
		}
		if t.live.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// makeRoom returns with a place reserved: a free one, or that of a flow it
// evicts, from sh or, should sh be empty, from the next shard that is not. The
// caller holds no lock.
func (t *Table) makeRoom(sh *shard, now int64) {
	for !t.reserve() {
		for range t.shards {
			if f := t.evict(sh, now); f != nil {
				t.end(f, Evicted)
				return
			}
			sh = &t.shards[(sh.first>>t.shardShift+1)%uint32(len(t.shards))]
		}
	}
}

// evict unlinks the victim of the shard's next sample; nil if the shard is empty.
func (t *Table) evict(sh *shard, now int64) *Flow {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := sample{crowd: t.crowd()}
	for range t.shardMask + 1 {
		for f := range t.buckets[sh.first+sh.hand].all() {
			s.add(f, now)
		}
		sh.hand = (sh.hand + 1) & t.shardMask
		if s.n >= sampleMost || s.n >= sampleSize && s.satisfied() {
			break
		}
	}
	f := s.victim()
	if f != nil {
		t.unlink(f)
	}
	return f
}

// crowd reports whether flows that are not established hold more than their
// quarter of the table.
func (t *Table) crowd() bool {
	return 4*(t.live.Load()-t.established.Load()) >= t.max
}

// sample finds the flow that is least worth keeping.
type sample struct {
	crowd  bool
	n      int
	oldest [established + 1]*Flow // by worth
	age    [established + 1]int64
}

func (s *sample) add(f *Flow, now int64) {
	s.n++
	age := now - f.seen.Load()
	w := worthOf(f.state.Load(), f.key.Proto)
	if s.oldest[w] == nil || age > s.age[w] {
		s.oldest[w], s.age[w] = f, age
	}
}

// satisfied reports whether the rule finds whom it looks for.
func (s *sample) satisfied() bool {
	return !s.crowd || s.oldest[tentative] != nil || s.oldest[spent] != nil
}

// victim follows the rule that [Table.Insert] states; nil if nothing was sampled.
func (s *sample) victim() *Flow {
	switch half, whole := s.oldest[tentative], s.oldest[established]; {
	case s.oldest[spent] != nil:
		return s.oldest[spent]
	case half == nil:
		return whole
	case whole == nil || s.crowd || s.age[tentative] >= s.age[established]:
		return half
	default:
		return whole
	}
}
