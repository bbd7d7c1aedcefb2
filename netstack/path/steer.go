package path

import "fmt"

// Candidate is what steering knows of one path to a destination: an entry of
// an immutable snapshot.
type Candidate struct {
	// Index identifies the path to the caller, not negative; flows remember
	// it. It also salts the balancing, so it should outlive a reload.
	Index  int
	ID     ID
	Uplink string
	State  State
	// Suppressed: the path flaps (see [Damper]).
	Suppressed bool
	// Class is indexed by ClassID.
	Class []Standing
}

// Standing is how a path does for one class.
type Standing struct {
	Score Score
	Rank  Rank
	// Floor and Ceil bound the score over the last 30 s; NoScore if it was not
	// measured for all of that time.
	Floor, Ceil Score
	// Group is the place of the path's uplink in the class's preference.
	Group uint8
	// Violates: the SLA is violated, with hysteresis.
	Violates bool
	// Settled: for 30 s the path has been up, not suppressed, and not violating.
	Settled bool
}

// Margin is the number of points by which a path must be better for 30 s
// before a flow returns to it, and within which scores count as equal.
const Margin = 10

// Why says why a path was chosen.
type Why uint8

// The reasons.
const (
	WhyNone        Why = iota // no candidate at all
	WhyBest                   // the only, or the clearly best path meeting the SLA
	WhyBalanced               // one of several equal paths, by the flow's hash
	WhySticky                 // the flow stays where it is
	WhyPreferred              // back to a more preferred uplink that has settled
	WhyReturned               // back to the flow's own path, better for 30 s
	WhyViolation              // the flow's path violates the SLA, this one does not
	WhyDown                   // the flow's path is down
	WhyBestOfWorst            // all paths violate the SLA; this is the best
	WhySuppressed             // only flapping paths are left
	WhyUnmeasured             // only paths without measurements are left
	WhyLastResort             // all paths are down; tried all the same
	WhyStrict                 // refused: no path meets the SLA of a strict class
)

var whyNames = [...]string{
	WhyNone: "no path", WhyBest: "best", WhyBalanced: "balanced", WhySticky: "sticky",
	WhyPreferred: "preferred uplink settled", WhyReturned: "own path better for 30 s",
	WhyViolation: "path violated the sla", WhyDown: "path down",
	WhyBestOfWorst: "best of the worst", WhySuppressed: "only flapping paths",
	WhyUnmeasured: "only unmeasured paths", WhyLastResort: "all paths down",
	WhyStrict: "strict class: no path meets the sla",
}

// String is the phrase that decision records show.
func (w Why) String() string {
	if int(w) < len(whyNames) {
		return whyNames[w]
	}
	return fmt.Sprintf("why(%d)", uint8(w))
}

// tier orders candidates by what can be expected of them.
type tier uint8

const (
	tierHealthy tier = iota
	tierViolating
	tierSuppressed
	tierUnknown
	tierDown
	tierExcluded // not listed by a strict class
	tiers
)

func (c *Candidate) tier(class *Class) tier {
	st := &c.Class[class.ID]
	switch {
	case class.Strict && st.Group == NoGroup:
		return tierExcluded
	case c.State == Down:
		return tierDown
	case c.State == Unknown:
		return tierUnknown
	case st.Violates:
		return tierViolating
	case c.Suppressed:
		return tierSuppressed
	}
	return tierHealthy
}

// Steer chooses the path of a flow. hash identifies the flow and spreads flows
// over equal paths (rendezvous hashing: a path that goes away moves only its own
// flows); current is the Index of the flow's path, or -1 for a new flow. The
// winner is an Index, or -1 if there is none (WhyNone) or the class is strict
// and none meets its SLA (WhyStrict). With WhyLastResort all paths are down,
// and the winner is the one to try all the same.
//
// A flow stays where it is unless its path is Down, or violates the SLA while a
// better one exists; it returns to a more preferred uplink once that has
// settled, and to its own path among equals once that has been better by
// [Margin] for 30 s. Steer does not allocate and is safe for concurrent use.
func Steer(class *Class, cands []Candidate, hash uint64, current int) (winner int, why Why) {
	i, why := steer(class, cands, hash, current)
	if i < 0 {
		return -1, why
	}
	return cands[i].Index, why
}

// steer is Steer with positions in cands.
func steer(class *Class, cands []Candidate, hash uint64, current int) (int, Why) {
	var count [tiers]int
	cur := -1
	for i := range cands {
		count[cands[i].tier(class)]++
		if cands[i].Index == current {
			cur = i
		}
	}
	if cur < 0 {
		return pick(class, cands, hash, &count)
	}
	switch cands[cur].tier(class) {
	case tierHealthy:
		return improve(class, cands, hash, cur)
	case tierSuppressed, tierUnknown:
		return cur, WhySticky
	case tierViolating:
		if count[tierHealthy] > 0 {
			i, _ := pick(class, cands, hash, &count)
			return i, WhyViolation
		}
		if class.Strict {
			return pick(class, cands, hash, &count)
		}
		i := bestRank(class, cands, hash)
		if i != cur && cands[i].Class[class.ID].Rank >= cands[cur].Class[class.ID].Rank+Margin {
			return i, WhyBestOfWorst
		}
		return cur, WhySticky
	case tierDown:
		i, why := pick(class, cands, hash, &count)
		if why == WhyLastResort {
			return cur, why // moving between dead paths helps nobody
		}
		if why == WhyBest || why == WhyBalanced {
			why = WhyDown
		}
		return i, why
	case tierExcluded, tiers:
	}
	return pick(class, cands, hash, &count)
}

// pick chooses for a flow without a path.
func pick(class *Class, cands []Candidate, hash uint64, count *[tiers]int) (int, Why) {
	switch {
	case count[tierHealthy] > 0:
		i, n := bestHealthy(class, cands, hash)
		if n > 1 {
			return i, WhyBalanced
		}
		return i, WhyBest
	case count[tierViolating] > 0 && !class.Strict:
		return bestRank(class, cands, hash), WhyBestOfWorst
	case count[tierSuppressed] > 0:
		return heaviest(class, cands, hash, tierSuppressed), WhySuppressed
	case count[tierUnknown] > 0:
		return heaviest(class, cands, hash, tierUnknown), WhyUnmeasured
	case class.Strict && count[tierViolating] > 0:
		return -1, WhyStrict
	case count[tierDown] > 0 && !class.Strict:
		return heaviest(class, cands, hash, tierDown), WhyLastResort
	}
	return -1, WhyNone
}

// bestHealthy balances over the paths of the first group that are within
// Margin of its best score; n is their number.
func bestHealthy(class *Class, cands []Candidate, hash uint64) (best, n int) {
	group, top := uint8(NoGroup), NoScore
	for i := range cands {
		if cands[i].tier(class) != tierHealthy {
			continue
		}
		switch st := &cands[i].Class[class.ID]; {
		case st.Group < group || top == NoScore && st.Group == group:
			group, top = st.Group, st.Score
		case st.Group == group:
			top = max(top, st.Score)
		}
	}
	best = -1
	var weight uint64
	for i := range cands {
		st := &cands[i].Class[class.ID]
		if cands[i].tier(class) != tierHealthy || st.Group != group || st.Score+Margin < top {
			continue
		}
		n++
		if w := mix(hash, cands[i].Index); best < 0 || w > weight {
			best, weight = i, w
		}
	}
	return best, n
}

// bestRank is the best of the worst; within Margin preference decides, then the hash.
func bestRank(class *Class, cands []Candidate, hash uint64) int {
	top := Rank(minRank)
	for i := range cands {
		if cands[i].tier(class) == tierViolating {
			top = max(top, cands[i].Class[class.ID].Rank)
		}
	}
	best := -1
	var weight uint64
	for i := range cands {
		st := &cands[i].Class[class.ID]
		if cands[i].tier(class) != tierViolating || st.Rank+Margin < top {
			continue
		}
		w := mix(hash, cands[i].Index)
		if best >= 0 {
			g := cands[best].Class[class.ID].Group
			if st.Group > g || st.Group == g && w < weight {
				continue
			}
		}
		best, weight = i, w
	}
	return best
}

// heaviest chooses within one tier by group, then hash.
func heaviest(class *Class, cands []Candidate, hash uint64, t tier) int {
	best := -1
	var weight uint64
	for i := range cands {
		if cands[i].tier(class) != t {
			continue
		}
		w := mix(hash, cands[i].Index)
		if best >= 0 {
			g, h := cands[i].Class[class.ID].Group, cands[best].Class[class.ID].Group
			if g > h || g == h && w < weight {
				continue
			}
		}
		best, weight = i, w
	}
	return best
}

// improve looks for a path worth leaving a healthy one for.
func improve(class *Class, cands []Candidate, hash uint64, cur int) (int, Why) {
	here := &cands[cur].Class[class.ID]
	to, home := -1, -1
	var toWeight, homeWeight uint64
	toGroup := here.Group
	for i := range cands {
		c := &cands[i]
		st := &c.Class[class.ID]
		if st.Group > here.Group || c.tier(class) == tierExcluded {
			continue
		}
		w := mix(hash, c.Index)
		// Home is decided without regard to state: it is where the flow
		// would be if all were well.
		if st.Group == here.Group && (home < 0 || w > homeWeight) {
			home, homeWeight = i, w
		}
		if st.Group < here.Group && st.Settled && c.tier(class) == tierHealthy &&
			(to < 0 || st.Group < toGroup || st.Group == toGroup && w > toWeight) {
			to, toWeight, toGroup = i, w, st.Group
		}
	}
	if to >= 0 {
		return to, WhyPreferred
	}
	if home >= 0 && home != cur {
		st := &cands[home].Class[class.ID]
		if st.Settled && cands[home].tier(class) == tierHealthy && st.Floor >= 0 && here.Ceil >= 0 && st.Floor >= here.Ceil+Margin {
			return home, WhyReturned
		}
	}
	return cur, WhySticky
}

// mix is the weight of a path for a flow: the finaliser of splitmix64 (Steele,
// Lea, Flood, OOPSLA 2014) over both.
func mix(hash uint64, index int) uint64 {
	z := hash ^ (uint64(index)+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Considered is one line of a decision record.
type Considered struct {
	Path   ID
	Uplink string
	State  State
	Score  Score
	Group  uint8
	// Usable: the path could carry the flow within the class's SLA.
	Usable bool
	// Note says what speaks against the path; empty if nothing does.
	Note string
}

// Explain is [Steer] with the account of every candidate, for decision records
// and people. It allocates.
func Explain(class *Class, cands []Candidate, hash uint64, current int) (winner int, why Why, all []Considered) {
	winner, why = Steer(class, cands, hash, current)
	all = make([]Considered, 0, len(cands))
	for i := range cands {
		c := &cands[i]
		st := &c.Class[class.ID]
		t := c.tier(class)
		all = append(all, Considered{
			Path: c.ID, Uplink: c.Uplink, State: c.State, Score: st.Score, Group: st.Group,
			Usable: t == tierHealthy, Note: tierNotes[t],
		})
	}
	return winner, why, all
}

var tierNotes = [...]string{
	tierHealthy: "", tierViolating: "violates the sla", tierSuppressed: "flaps",
	tierUnknown: "not measured", tierDown: "down", tierExcluded: "uplink not listed by the strict class",
}
