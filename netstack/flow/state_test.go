package flow

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"patronus/netstack/packet"
)

// TestTCP follows conversations. A step is "> SA": the direction (> from the
// originator) and the flags of a run, then the state after it.
func TestTCP(t *testing.T) {
	for _, c := range []struct{ name, steps string }{
		{"handshake and close", "> S syn-sent, < SA syn-received, > A established, > AP established, < A established, > FA fin-wait, < A fin-wait, < AP fin-wait, < FA closing, > A closed"},
		{"the responder closes", "> S syn-sent, < SA syn-received, > A established, < FA fin-wait, > A fin-wait, > FA closing, > A closing, < A closed"},
		{"both close at once", "> S syn-sent, < SA syn-received, > A established, > FA fin-wait, < FA closing, > A closed"},
		{"data in the handshake", "> S syn-sent, < SA syn-received, > AP established"},
		{"repeated", "> S syn-sent, > S syn-sent, < SA syn-received, < SA syn-received, > A established, < SA established, > FA fin-wait, > FA fin-wait, < FA closing, < FA closing, > FA closing, > A closed, < FA closed"},
		{"FIN with the handshake's ACK", "> S syn-sent, < SA syn-received, > FA fin-wait"},
		{"a whole run at once", "> S syn-sent, < SAP syn-received, > FAP fin-wait, < FAP closing"},
		{"refused", "> S syn-sent, < RA closed, > A closed"},
		{"reset", "> S syn-sent, < SA syn-received, > A established, < R closed, < AP closed"},
		{"reset by an adopted side", "> R closed"},
		{"both open at once", "> S syn-sent, < S syn-received, > SA syn-received, < SA syn-received, > A established"},
		{"challenge acknowledgement", "> S syn-sent, < A syn-sent, > R closed"},
		{"SYN on an established flow", "> S syn-sent, < SA syn-received, > A established, > S established, < A established"},
		{"answer never seen", "> S syn-sent, > A syn-sent, > AP syn-sent"},
		{"adopted", "> A adopted, > AP adopted, < A established, > FA fin-wait"},
		{"adopted by the SYN's answer", "> SA adopted, < A established"},
		{"adopted at its end", "> FA fin-wait, < FA closing, > A closed"},
		{"junk", "> 0 adopted, < 0 adopted, < F fin-wait"},
		{"SYN and FIN", "> SF syn-sent, < SFA syn-received, > SFA syn-received"},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := New(Options{Max: 10})
			k := key(packet.TCP, "10.0.0.1:1000", "10.0.0.2:80")
			var f *Flow
			for i, step := range strings.Split(c.steps, ", ") {
				part := strings.Fields(step)
				flags := uint8(0)
				for j, letter := range "FSRPA" {
					if strings.ContainsRune(part[1], letter) {
						flags |= 1 << j
					}
				}
				if i == 0 {
					f, _ = table.Insert(&k, 0, 60, flags)
				} else {
					f.Observe(part[0] == ">", 1, 60, flags, 0)
				}
				if got := f.State().String(); got != part[2] {
					t.Fatalf("step %d, %q: %s", i, step, got)
				}
			}
		})
	}
}

// TestStatesOnlyAdvance: whatever the flags, nothing is settled that would
// change, no state comes back, and nobody is established on one word.
func TestStatesOnlyAdvance(t *testing.T) {
	order := map[State]int{SynSent: 0, Adopted: 0, SynReceived: 1, Established: 2, FinWait: 3, Closing: 4, Closed: 5}
	rapid.Check(t, func(t *rapid.T) {
		w := firstState(packet.TCP, rapid.Uint8().Draw(t, "first"))
		for range rapid.IntRange(0, 12).Draw(t, "steps") {
			forward, flags := rapid.Bool().Draw(t, "forward"), rapid.Uint8().Draw(t, "flags")
			next := advance(w, forward, flags)
			if settled(w, forward, flags) && next != w {
				t.Fatalf("settled in %v, but goes to %v", State(w&stateMask), State(next&stateMask))
			}
			if order[State(next&stateMask)] < order[State(w&stateMask)] {
				t.Fatalf("from %v back to %v", State(w&stateMask), State(next&stateMask))
			}
			w = next
			if worthOf(w, packet.TCP) == established && w&replied == 0 {
				t.Fatal("established without an answer")
			}
		}
	})
}
