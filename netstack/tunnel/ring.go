package tunnel

// list is a queue of lanes.
type list struct{ head, tail *lane }

func (s *list) push(l *lane) {
	l.next = nil
	if s.tail == nil {
		s.head = l
	} else {
		s.tail.next = l
	}
	s.tail = l
}

func (s *list) pop() {
	l := s.head
	s.head = l.next
	if s.head == nil {
		s.tail = nil
	}
	l.next = nil
}

// rotate moves the first lane to the end.
func (s *list) rotate() {
	if l := s.head; l != s.tail {
		s.pop()
		s.push(l)
	}
}

// ring is a growing ring of entries.
type ring struct {
	e       []entry // length is a power of two
	head, n int
}

func (r *ring) push(e entry) {
	if r.n == len(r.e) {
		grown := make([]entry, max(8, 2*len(r.e)))
		for i := range r.n {
			grown[i] = r.e[(r.head+i)&(len(r.e)-1)]
		}
		r.e, r.head = grown, 0
	}
	r.e[(r.head+r.n)&(len(r.e)-1)] = e
	r.n++
}

func (r *ring) front() *entry { return &r.e[r.head] }

func (r *ring) pop() {
	r.e[r.head] = entry{}
	r.head = (r.head + 1) & (len(r.e) - 1)
	r.n--
}
