package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"patronus/netstack/flow"
	"patronus/netstack/path"
)

// The errors.
var (
	// ErrDamaged: a value's checksum does not fit it and its key. It was not
	// served.
	ErrDamaged = errors.New("stored value is damaged")
	// ErrNoSpace: the disk is filled up to the reserve. Reads go on; writes do
	// again as soon as there is room.
	ErrNoSpace = errors.New("disk is filled up to the reserve")
	// ErrNewer: a newer program wrote the store.
	ErrNewer = errors.New("store was written by a newer version")
	// ErrNotFound: there is no such record.
	ErrNotFound = errors.New("no such record")
	// ErrForeign: a record claims to be of another site than the one it came from.
	ErrForeign = errors.New("record belongs to another site")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
)

// Series is a path as its own site sees it.
type Series struct {
	Site string
	Path path.ID
}

// Sample is what was measured of one path at one time.
type Sample struct {
	// At is Unix ms on the site's timeline: its own clock, except that the
	// timeline never goes back into what it has already written (see DESIGN.md).
	At int64
	// Offset is the estimate of At minus the fabric's clock, ms; 0 if it is not
	// known or if the site is itself the reference.
	Offset int32
	// V has a quantised integer, or [Missing], for each [Metric].
	V [NumMetrics]int32
}

// SeriesSample is a sample of a series.
type SeriesSample struct {
	Series
	Sample
}

// Tier is how finely a block resolves time.
type Tier uint8

// The tiers.
const (
	Auto   Tier = iota // in a [Query]: what fits its step and what there is
	Raw                // every sample
	Minute             // rollups of one minute
	Hour               // rollups of one hour
)

func (t Tier) String() string {
	switch t {
	case Auto:
		return "auto"
	case Raw:
		return "raw"
	case Minute:
		return "minute"
	case Hour:
		return "hour"
	default:
		return fmt.Sprintf("tier(%d)", uint8(t))
	}
}

// BlockID names a block. Start is Unix ms, a multiple of [Tier.Span].
type BlockID struct {
	Series
	Tier  Tier
	Start int64
}

// Block is a sealed block. Data carries a checksum that is bound to ID, and is
// the same on every box.
type Block struct {
	ID   BlockID
	Data []byte
}

// Kind says what a [Record] is.
type Kind uint8

// The kinds. They are the first octet of keys, too.
const (
	KindBlock  Kind = 'b' // samples or rollups of one series
	KindFlows  Kind = 'f' // flow records, each with its decision
	KindTotals Kind = 'a' // what flows carried in one minute
	KindEvent  Kind = 'e'
	KindAck    Kind = 'k' // of an event
	KindState  Kind = 's' // one hour of a site's state: snapshot and deltas
)

func (k Kind) String() string {
	switch k {
	case KindBlock:
		return "block"
	case KindFlows:
		return "flows"
	case KindTotals:
		return "totals"
	case KindEvent:
		return "event"
	case KindAck:
		return "ack"
	case KindState:
		return "state"
	default:
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
}

// Record is one unit of federation. Value carries a checksum that is bound to
// Key; both are the same on every box.
type Record struct {
	Seq   uint64 // of the store that it was read from
	Kind  Kind
	Key   []byte
	Value []byte
}

// Event is something that happened.
type Event struct {
	ID       string          `json:"id"` // given by Append if empty
	At       int64           `json:"at"` // Unix ms
	Type     string          `json:"event_type"`
	Severity string          `json:"severity"`
	Site     string          `json:"site,omitempty"`
	Source   string          `json:"source_id,omitempty"`
	Data     json.RawMessage `json:"data,omitempty"`
	Ack      *Ack            `json:"ack,omitempty"`
}

// Ack says who has seen an event.
type Ack struct {
	By string `json:"by"`
	At int64  `json:"at"` // Unix ms
}

// FlowRecord is a flow at one of its turns. Counts are those since it began.
type FlowRecord struct {
	At       int64        `json:"at"` // Unix ms of this record
	ID       string       `json:"flow_key"`
	Site     string       `json:"site"` // that saw it
	Change   string       `json:"change"`
	End      string       `json:"end,omitempty"` // why it ended, if it did
	Src      netip.Addr   `json:"src"`
	Dst      netip.Addr   `json:"dst"`
	SrcPort  uint16       `json:"src_port"`
	DstPort  uint16       `json:"dst_port"`
	Protocol string       `json:"protocol"`
	Status   string       `json:"status"` // active or blocked
	Path     path.ID      `json:"path_id,omitempty"`
	Class    string       `json:"class,omitempty"`
	Policy   string       `json:"policy,omitempty"`
	Rule     int          `json:"rule"` // its index, or -1
	Reason   string       `json:"reason,omitempty"`
	Moves    uint32       `json:"moves,omitempty"`
	Forward  flow.Counts  `json:"forward"`
	Reverse  flow.Counts  `json:"reverse"`
	Started  int64        `json:"started_at"` // Unix ms
	Seen     int64        `json:"seen_at"`    // of the last packet, Unix ms
	Ended    int64        `json:"ended_at,omitempty"`
	Decision *flow.Record `json:"decision,omitempty"` // with the labels of both ends as they were
}

// Change is a new value of one piece of a site's state, as [Store.StateAt]
// shows it again later. Keys are the writer's, such as "revision" or
// "path/hq.wan0~east.lte0"; a null value removes the key.
type Change struct {
	At    int64           `json:"at"` // Unix ms
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
}

// Batch is one tick of one site.
type Batch struct {
	Site    string
	At      int64 // Unix ms of the site's own clock
	Samples []SeriesSample
	Flows   []FlowRecord
	Events  []Event
	Changes []Change
}

// Query asks for points of one series and metric.
type Query struct {
	Series
	Metric   Metric
	From, To int64 // Unix ms, To excluded
	// Step is the distance of points, ms; 0: as stored. Points are aligned to
	// multiples of it.
	Step int64
	// Tier is where to read; Auto takes the coarsest that is fine enough.
	Tier Tier
}

// Point is what a metric was in the Step that begins At, in [Metric.Unit].
// Points of single samples have Count 1.
type Point struct {
	At                  int64
	Min, Max, Mean, P95 float64
	Count               uint64
}

// Quantile is one value of [Store.FleetQuantile].
type Quantile struct {
	At    int64
	Value float64
	Count uint64 // samples behind it
}

// Page is a part of a listing, newest first. After is the Next of the page
// before it.
type Page struct {
	After string
	Limit int // 0: 100
}

// FlowFilter selects flow records; zero fields select all.
type FlowFilter struct {
	Site     string
	From, To int64 // Unix ms of the record, To excluded; To 0: no bound
	// AliveAt selects flows that saw packets before and after this time.
	AliveAt  int64
	Src, Dst netip.Addr // either direction, if both are given
	Protocol string
	Port     uint16 // of the destination
	Path     path.ID
	Policy   string
	Class    string
	Status   string
	ID       string
	// Latest gives the newest record of each flow instead of all.
	Latest bool
}

// EventFilter selects events; zero fields select all.
type EventFilter struct {
	From, To int64 // Unix ms, To excluded; To 0: no bound
	Type     string
	Severity string
	Site     string
	Source   string
	Unacked  bool
}

// Totals is what the flows of one site carried in one minute.
type Totals struct {
	At       int64            `json:"at"` // Unix ms, start of the minute
	Site     string           `json:"site"`
	Flows    uint64           `json:"flows"`
	Blocked  uint64           `json:"blocked"`
	Bytes    uint64           `json:"bytes"`
	Packets  uint64           `json:"packets"`
	ByPath   map[string]Share `json:"by_path,omitempty"`
	ByPolicy map[string]Share `json:"by_policy,omitempty"`
	ByClass  map[string]Share `json:"by_class,omitempty"`
	// Talkers are the addresses with the most bytes, both directions, at most 20.
	Talkers []Talker `json:"talkers,omitempty"`
}

// Share is a part of the traffic. Keys beyond 256 are added up under "other".
type Share struct {
	Flows   uint64 `json:"flows"`
	Bytes   uint64 `json:"bytes"`
	Packets uint64 `json:"packets"`
}

// Talker is an address and what it sent and received.
type Talker struct {
	Addr  netip.Addr `json:"addr"`
	Bytes uint64     `json:"bytes"`
}

// FleetState is what was known at a time.
type FleetState struct {
	At    int64
	Sites []SiteState
}

// SiteState is what was known of one site.
type SiteState struct {
	Site string
	// KnownAt is the time of the newest thing known, Unix ms: well before At if
	// the site was off or cut off.
	KnownAt int64
	Values  map[string]json.RawMessage // of [Change] keys
	Paths   []SeriesSample             // the last sample of each path before At
}
