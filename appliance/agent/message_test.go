package agent

import (
	"bytes"
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"patronus/appliance/store"
	"patronus/netstack/path"
)

// schema is agent.proto as protoc compiled it, by
// protoc -I appliance/agent -o appliance/agent/testdata/agent.pb agent.proto.
func schema(t testing.TB) protoreflect.FileDescriptor {
	t.Helper()
	text, err := os.ReadFile("testdata/agent.pb")
	if err != nil {
		t.Fatal(err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(text, &set); err != nil {
		t.Fatal(err)
	}
	file, err := protodesc.NewFile(set.File[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func examples() map[string]message {
	record := store.Record{Seq: 1 << 40, Kind: store.KindBlock, Key: []byte("key"), Value: bytes.Repeat([]byte{7}, 300)}
	records := Records{First: 3, Last: 1 << 41, Records: []store.Record{record, {Seq: 9}, {Kind: store.KindAck}}, Damaged: []uint64{1, 300, 1 << 60}}
	sample := func(path path.ID, at int64, latency int32) store.SeriesSample {
		s := store.SeriesSample{Series: store.Series{Path: path}, Sample: store.Sample{At: at, Offset: -3}}
		s.V[store.Latency], s.V[store.Loss] = latency, store.Missing
		return s
	}
	tick := &Tick{
		Site: "hq", At: 5, Events: []store.Event{{ID: "e"}},
		Samples: []store.SeriesSample{sample("p", 1e12, 5), sample("p", 1e12+1000, math.MaxInt32), sample("q", 7, -1)},
	}
	return map[string]message{
		"IdentifyRequest": &IdentifyRequest{},
		"Identity":        &Identity{Fabric: "f", Site: "hq", Node: "n", Epoch: 1 << 63, Version: "v1", ClockMS: -5, Head: 12},
		"Terms":           &Terms{SigningKey: []byte("k"), Signed: [][]byte{{1}, {}, {2, 3}}},
		"RecordsRequest":  &RecordsRequest{Node: "n", Epoch: 2, First: 1, Last: 1 << 50},
		"Records":         &records,
		"TailRequest":     &TailRequest{Node: "n", Epoch: 2, After: 3, SinceMS: 4},
		"TailEvent":       &TailEvent{ClockMS: 1, Records: &records, Tick: tick, CaughtUp: true},
		"Tick":            tick,
	}
}

// What we write is what protobuf reads as agent.proto says, field by field, and
// the other way round.
func TestAgainstProtobuf(t *testing.T) {
	file := schema(t)
	seen := 0
	for name, m := range examples() {
		ours := m.append(nil)
		theirs := dynamicpb.NewMessage(file.Messages().ByName(protoreflect.Name(name)))
		if err := proto.Unmarshal(ours, theirs); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		unknown := 0
		var walk func(protoreflect.Message)
		walk = func(m protoreflect.Message) {
			unknown += len(m.GetUnknown())
			m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
				if f.Kind() == protoreflect.MessageKind && f.IsList() {
					for i := range v.List().Len() {
						walk(v.List().Get(i).Message())
					}
				} else if f.Kind() == protoreflect.MessageKind {
					walk(v.Message())
				}
				return true
			})
		}
		walk(theirs)
		if unknown > 0 {
			t.Errorf("%s: %d bytes of fields that the schema does not have", name, unknown)
		}
		fields := 0
		theirs.Range(func(protoreflect.FieldDescriptor, protoreflect.Value) bool { fields++; return true })
		if want := theirs.Descriptor().Fields().Len(); fields != want {
			t.Errorf("%s: %d of %d fields arrived", name, fields, want)
		}
		back, err := proto.Marshal(theirs)
		if err != nil {
			t.Fatal(err)
		}
		again := reflect.New(reflect.TypeOf(m).Elem()).Interface().(message)
		if err := (codec{}).Unmarshal(back, again); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(again.append(nil), ours) || name == "Tick" && !reflect.DeepEqual(again, m) {
			t.Errorf("%s: %+v came back as %+v", name, m, again)
		}
		seen++
	}
	// Record is inside of Records, Series inside of Tick.
	if want := file.Messages().Len() - 2; seen != want {
		t.Errorf("%d messages tried, the schema has %d", seen, want)
	}
}

// FuzzDecode reads anything without a panic, and what it reads it writes again
// with the same meaning.
func FuzzDecode(f *testing.F) {
	for _, m := range examples() {
		f.Add(m.append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range examples() {
			m = reflect.New(reflect.TypeOf(m).Elem()).Interface().(message)
			if err := (codec{}).Unmarshal(b, m); err != nil {
				if !errors.Is(err, errMessage) {
					t.Fatal(err)
				}
				continue
			}
			text := m.append(nil)
			again := reflect.New(reflect.TypeOf(m).Elem()).Interface().(message)
			if err := (codec{}).Unmarshal(text, again); err != nil || !bytes.Equal(again.append(nil), text) {
				t.Fatalf("%+v, %v", again, err)
			}
		}
	})
}

// queue is a listener of connections that are there already.
type queue struct {
	net.Listener
	conns []net.Conn
}

func (q *queue) Accept() (net.Conn, error) {
	if len(q.conns) == 0 {
		return nil, net.ErrClosed
	}
	c := q.conns[0]
	q.conns = q.conns[1:]
	return c, nil
}

type addressed struct {
	net.Conn
	from   string
	closed *int
}

func (a addressed) RemoteAddr() net.Addr {
	at, err := netip.ParseAddrPort(a.from)
	if err != nil {
		return &net.UnixAddr{Name: a.from}
	}
	return net.TCPAddrFromAddrPort(at)
}

func (a addressed) Close() error { *a.closed++; return nil }

// Nobody gets in without an address of the fabric, and no site with more
// connections than its share.
func TestListener(t *testing.T) {
	closed := 0
	q := &queue{}
	for range connectionsEach + 3 {
		q.conns = append(q.conns, addressed{from: "[fd50::1]:1", closed: &closed})
	}
	for _, from := range []string{"[fd50::2]:1", "10.0.0.1:5", "nonsense"} {
		q.conns = append(q.conns, addressed{from: from, closed: &closed})
	}
	l := &peerListener{Listener: q, open: map[string]int{}, siteOf: func(a netip.Addr) (string, bool) {
		return map[string]string{"fd50::1": "hq", "fd50::2": "east"}[a.String()], a.Is6()
	}}
	sites := map[string]int{}
	var first net.Conn
	for {
		c, err := l.Accept()
		if err != nil {
			break
		}
		if first == nil {
			first = c
		}
		sites[c.(*peerConn).site]++
	}
	if sites["hq"] != connectionsEach || sites["east"] != 1 || closed != 3+2 {
		t.Errorf("%v, %d closed", sites, closed)
	}
	first.Close()
	first.Close()
	if l.open["hq"] != connectionsEach-1 {
		t.Errorf("%d open", l.open["hq"])
	}
}
