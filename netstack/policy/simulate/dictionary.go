package simulate

import (
	"fmt"
	"sync"

	"patronus/netstack/policy"
)

// party is a party of the input with what the rules know of it. It never
// changes.
type party struct {
	Party
	number  uint32 // Nowhere for an address in no endpoint
	site    uint32 // numbered, 0 is none
	subject policy.Subject
}

var nowhere = party{number: Nowhere}

// dictionary holds the parties and names of an input. Slices only grow, so that
// what was handed out stays valid.
type dictionary struct {
	mu       sync.Mutex
	profiler *policy.Profiler
	parties  []*party
	names    []string
	sites    map[string]uint32
	byText   map[string]*party // of lines
	byName   map[string]uint32 // of lines
}

func newDictionary(p *policy.Profiler) *dictionary {
	return &dictionary{profiler: p, sites: map[string]uint32{"": 0}, byText: map[string]*party{}, byName: map[string]uint32{}}
}

func (d *dictionary) addParty(text []byte) (*party, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.add(text)
}

func (d *dictionary) add(text []byte) (*party, error) {
	if len(d.parties) == maxParties {
		return nil, fmt.Errorf("more than %d", maxParties)
	}
	p, err := parseParty(text)
	if err != nil {
		return nil, err
	}
	out := &party{number: uint32(len(d.parties))}
	if p != nil {
		out.Party = *p
	}
	var ok bool
	if out.site, ok = d.sites[out.Site]; !ok {
		out.site = uint32(len(d.sites))
		d.sites[out.Site] = out.site
	}
	if out.Namespace != "" {
		out.subject = d.profiler.Subject(policy.Profile{
			Namespace: p.Namespace, NamespaceLabels: p.NamespaceLabels, Labels: p.Labels, Ports: p.Ports,
		})
	}
	d.parties = append(d.parties, out)
	return out, nil
}

func (d *dictionary) addName(s string) (uint32, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.appendName(s)
}

func (d *dictionary) appendName(s string) (uint32, error) {
	if len(d.names) == maxNames {
		return NoName, fmt.Errorf("more than %d", maxNames)
	}
	d.names = append(d.names, s)
	return uint32(len(d.names) - 1), nil
}

func (d *dictionary) snapshot() ([]*party, int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.parties, len(d.names)
}

func (d *dictionary) name(i uint32) string {
	if i == NoName {
		return ""
	}
	return d.names[i]
}

// localDictionary finds what one worker has seen before without a lock.
type localDictionary struct {
	shared  *dictionary
	parties map[string]*party
	names   map[string]uint32
}

func (l *localDictionary) party(text []byte) (*party, error) {
	if len(text) == 0 || string(text) == "null" {
		return &nowhere, nil
	}
	if p := l.parties[string(text)]; p != nil {
		return p, nil
	}
	d := l.shared
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.byText[string(text)]
	if p == nil {
		var err error
		if p, err = d.add(text); err != nil {
			return nil, err
		}
		d.byText[string(text)] = p
	}
	l.parties[string(text)] = p
	return p, nil
}

func (l *localDictionary) name(s string) (uint32, error) {
	if s == "" {
		return NoName, nil
	}
	if i, ok := l.names[s]; ok {
		return i, nil
	}
	d := l.shared
	d.mu.Lock()
	defer d.mu.Unlock()
	i, ok := d.byName[s]
	if !ok {
		var err error
		if i, err = d.appendName(s); err != nil {
			return NoName, err
		}
		d.byName[s] = i
	}
	l.names[s] = i
	return i, nil
}
