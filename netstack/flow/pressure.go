package flow

// sampleSize is how many flows compete when one has to go. Each costs one
// cache miss; 16 come close to the oldest of all (Redis' approximated LRU
// takes 5 to 10).
const sampleSize = 16

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
	var s sample
	for range t.shardMask + 1 {
		for f := range t.buckets[sh.first+sh.hand].all() {
			s.add(f, now)
		}
		sh.hand = (sh.hand + 1) & t.shardMask
		if s.n >= sampleSize {
			break
		}
	}
	f := s.victim()
	if f != nil {
		t.unlink(f)
	}
	return f
}

// sample finds the flow that is least worth keeping.
type sample struct {
	n, tentative int
	oldest       [established + 1]*Flow // by worth
	age          [established + 1]int64
}

func (s *sample) add(f *Flow, now int64) {
	age := now - f.seen.Load()
	w := worthOf(f.state.Load(), f.key.Proto)
	if s.n++; w == tentative {
		s.tentative++
	}
	if s.oldest[w] == nil || age > s.age[w] {
		s.oldest[w], s.age[w] = f, age
	}
}

// victim follows the rule that [Table.Insert] states; nil if nothing was sampled.
func (s *sample) victim() *Flow {
	switch half, whole := s.oldest[tentative], s.oldest[established]; {
	case s.oldest[spent] != nil:
		return s.oldest[spent]
	case half == nil:
		return whole
	case whole == nil, 4*s.tentative >= s.n, s.age[tentative] >= s.age[established]:
		return half
	default:
		return whole
	}
}
