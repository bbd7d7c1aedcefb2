package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/graph-gophers/graphql-go"

	"patronus/dashboard/auth"
	"patronus/netstack/path"
)

// graphSchema is the published query, and what belongs beside it.
const graphSchema = `
schema { query: Query }
type Query {
  sites(status: String): [Site!]!
  site(id: ID!): Site
  paths(status: String): [Path!]!
  path(id: ID!): Path
  policies: [Policy!]!
  flowStats(last: String = "1h"): FlowStats!
}
type Site { id: ID! name: String! status: String! reason: String! revision: String! inSync: Boolean! activeFlows: Int! paths: [Path!]! }
type Path { id: ID! source: Site destination: Site uplink: String! remoteUplink: String! status: String! reason: String! metrics: Metrics! }
type Metrics { latency_ms: Float jitter_ms: Float packet_loss_pct: Float bandwidth_mbps: Float tx_mbps: Float rx_mbps: Float score: Int }
type Policy { id: ID! kind: String! namespace: String! name: String! mode: String! appliesTo: Int! blocksLastHour: Int }
type FlowStats { totalFlows: Float! blockedFlows: Float! bytes: Float! topTalkers: [Talker!]! }
type Talker { sourceIp: String! bytes: Float! flows: Float! }
`

// Bounds of a query. Depth, selections and length are checked before it is
// carried out; nodes bound what a short query over long lists can ask for.
const (
	graphDepth      = 8
	graphSelections = 200
	graphLength     = 8 << 10
	graphNodes      = 100_000
)

// GraphBody is a GraphQL request.
type GraphBody struct {
	Query         string         `json:"query"`
	OperationName string         `json:"operationName,omitempty"`
	Variables     map[string]any `json:"variables,omitempty"`
}

// GraphAnswer is a GraphQL response (GraphQL, October 2021, 7.1).
type GraphAnswer struct {
	Data       json.RawMessage `json:"data,omitempty"`
	Errors     json.RawMessage `json:"errors,omitempty"`
	Extensions json.RawMessage `json:"extensions,omitempty"`
}

func graphRoutes() []Route {
	return []Route{{
		Method: http.MethodPost, Path: "/api/v1/graphql", Name: "graphql", Access: signedIn(), Status: 200,
		Doc: "Ask a GraphQL query; each field needs the permission of its REST route.", Body: GraphBody{}, Answer: GraphAnswer{}, handle: (*Server).graphql,
	}}
}

type graph struct{ schema *graphql.Schema }

func newGraph(s *Server) (*graph, error) {
	schema, err := graphql.ParseSchema(graphSchema, &queryResolver{s},
		graphql.MaxDepth(graphDepth), graphql.MaxSelections(graphSelections), graphql.MaxQueryLength(graphLength),
		graphql.MaxParallelism(4), graphql.OverlapValidationLimit(10_000))
	if err != nil {
		return nil, fmt.Errorf("graph schema: %w", err)
	}
	return &graph{schema}, nil
}

func (s *Server) graphql(r *request) error {
	var b GraphBody
	if err := r.body(&b); err != nil {
		return err
	}
	if b.Query == "" {
		return invalid("query", "is missing")
	}
	v, err := s.view(r.UserContext())
	if err != nil {
		return err
	}
	ask := &asking{view: v, actor: r.actor}
	answer := s.graph.schema.Exec(context.WithValue(r.UserContext(), askingKey{}, ask), b.Query, b.OperationName, b.Variables)
	if answer.Data == nil && len(answer.Errors) > 0 {
		return r.answer(http.StatusBadRequest, answer)
	}
	return r.answer(http.StatusOK, answer)
}

// asking is what the resolvers of one query share: who asks, what they see, and
// how much they have been given.
type asking struct {
	view  *view
	actor auth.Actor
	nodes atomic.Int64
}

type askingKey struct{}

var errGraphNodes = errors.New("the query asks for too much: narrow it")

// asked finds the asking of a context, checks a permission and takes n nodes
// off the budget.
func asked(ctx context.Context, p auth.Permission, n int) (*asking, error) {
	a, ok := ctx.Value(askingKey{}).(*asking)
	switch {
	case !ok || !a.actor.May(p):
		return nil, fmt.Errorf("this needs the permission %s", p)
	case a.nodes.Add(int64(n)) > graphNodes:
		return nil, errGraphNodes
	}
	return a, nil
}

type queryResolver struct{ server *Server }

func (*queryResolver) Sites(ctx context.Context, args struct{ Status *string }) ([]*siteResolver, error) {
	a, err := asked(ctx, auth.ViewSites, 0)
	if err != nil {
		return nil, err
	}
	list := []*siteResolver{}
	for i := range a.view.sites.list() {
		x := &a.view.sites.list()[i]
		if a.view.sees(&a.actor, x.ID) && (args.Status == nil || *args.Status == x.Status) {
			list = append(list, &siteResolver{x})
		}
	}
	_, err = asked(ctx, auth.ViewSites, len(list))
	return list, err
}

func (*queryResolver) Site(ctx context.Context, args struct{ ID graphql.ID }) (*siteResolver, error) {
	a, err := asked(ctx, auth.ViewSites, 1)
	if err != nil {
		return nil, err
	}
	return a.site(string(args.ID)), nil
}

// site is a site in the asker's scope, nil if there is none.
func (a *asking) site(id string) *siteResolver {
	x, ok := a.view.sites.find(id)
	if !ok || !a.view.sees(&a.actor, id) {
		return nil
	}
	return &siteResolver{x}
}

func (a *asking) paths(ctx context.Context, keep func(*Path) bool) ([]*pathResolver, error) {
	list := []*pathResolver{}
	for i := range a.view.paths.list() {
		p := &a.view.paths.list()[i]
		if a.view.seesPath(&a.actor, p) && keep(p) {
			list = append(list, &pathResolver{p})
		}
	}
	_, err := asked(ctx, auth.ViewPaths, len(list))
	return list, err
}

func (*queryResolver) Paths(ctx context.Context, args struct{ Status *string }) ([]*pathResolver, error) {
	a, err := asked(ctx, auth.ViewPaths, 0)
	if err != nil {
		return nil, err
	}
	return a.paths(ctx, func(p *Path) bool { return args.Status == nil || p.Status == *args.Status })
}

func (*queryResolver) Path(ctx context.Context, args struct{ ID graphql.ID }) (*pathResolver, error) {
	a, err := asked(ctx, auth.ViewPaths, 1)
	if err != nil {
		return nil, err
	}
	p, ok := a.view.paths.find(string(args.ID))
	if !ok || !a.view.seesPath(&a.actor, p) {
		return nil, nil
	}
	return &pathResolver{p}, nil
}

func (*queryResolver) Policies(ctx context.Context) ([]*policyResolver, error) {
	a, err := asked(ctx, auth.ViewPolicies, 0)
	if err != nil {
		return nil, err
	}
	list := []*policyResolver{}
	for i := range a.view.policies.list() {
		list = append(list, &policyResolver{&a.view.policies.list()[i]})
	}
	_, err = asked(ctx, auth.ViewPolicies, len(list))
	return list, err
}

func (q *queryResolver) FlowStats(ctx context.Context, args struct{ Last string }) (*statsResolver, error) {
	a, err := asked(ctx, auth.ViewFlows, 1)
	if err != nil {
		return nil, err
	}
	span, err := parseSpan(args.Last)
	if err != nil || span > 7*24*time.Hour {
		return nil, errors.New(`last is a duration of at most 7d, such as "1h"`)
	}
	if q.server.o.History == nil {
		return nil, ErrUnavailable
	}
	defer q.server.meter.query("flow_stats")()
	now := q.server.now()
	stats, err := q.server.o.History.FlowStats(ctx, now.Add(-span), now, topTalkers, a.view.scope(&a.actor))
	if err != nil {
		if _, known := problemOf(err); !known {
			q.server.log.Error("flow statistics failed", "err", err)
		}
		return nil, errors.New("the flows cannot be counted")
	}
	return &statsResolver{stats}, nil
}

// topTalkers is how many sources flowStats names.
const topTalkers = 10

type siteResolver struct{ s *Site }

func (x *siteResolver) ID() graphql.ID     { return graphql.ID(x.s.ID) }
func (x *siteResolver) Name() string       { return x.s.Name }
func (x *siteResolver) Status() string     { return x.s.Status }
func (x *siteResolver) Reason() string     { return x.s.Reason }
func (x *siteResolver) Revision() string   { return fmt.Sprint(x.s.Revision) }
func (x *siteResolver) InSync() bool       { return x.s.InSync }
func (x *siteResolver) ActiveFlows() int32 { return int32(min(x.s.Flows, math.MaxInt32)) }

func (x *siteResolver) Paths(ctx context.Context) ([]*pathResolver, error) {
	a, err := asked(ctx, auth.ViewPaths, 0)
	if err != nil {
		return nil, err
	}
	list := []*pathResolver{}
	for _, i := range a.view.pathsOf(x.s.ID) {
		list = append(list, &pathResolver{&a.view.paths.list()[i]})
	}
	_, err = asked(ctx, auth.ViewPaths, len(list))
	return list, err
}

type pathResolver struct{ p *Path }

func (x *pathResolver) ID() graphql.ID        { return graphql.ID(x.p.ID) }
func (x *pathResolver) Uplink() string        { return x.p.Uplink }
func (x *pathResolver) RemoteUplink() string  { return x.p.RemoteUplink }
func (x *pathResolver) Status() string        { return x.p.Status }
func (x *pathResolver) Reason() string        { return x.p.Reason }
func (x *pathResolver) Metrics() *metricsView { return &metricsView{&x.p.Metrics} }

func (x *pathResolver) Source(ctx context.Context) (*siteResolver, error) {
	return siteOf(ctx, x.p.Source.ID)
}

func (x *pathResolver) Destination(ctx context.Context) (*siteResolver, error) {
	return siteOf(ctx, x.p.Destination.ID)
}

func siteOf(ctx context.Context, id string) (*siteResolver, error) {
	a, err := asked(ctx, auth.ViewSites, 1)
	if err != nil {
		return nil, err
	}
	return a.site(id), nil
}

type metricsView struct{ m *path.Metrics }

// known is a value, nil if nobody knows it.
func known(v path.Value) *float64 {
	f := float64(v)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return &f
}

func (x *metricsView) LatencyMs() *float64     { return known(x.m.Latency) }
func (x *metricsView) JitterMs() *float64      { return known(x.m.Jitter) }
func (x *metricsView) PacketLossPct() *float64 { return known(x.m.PacketLoss) }
func (x *metricsView) BandwidthMbps() *float64 { return known(x.m.Bandwidth) }
func (x *metricsView) TxMbps() *float64        { return known(x.m.Tx) }
func (x *metricsView) RxMbps() *float64        { return known(x.m.Rx) }

func (x *metricsView) Score() *int32 {
	if x.m.Score < 0 {
		return nil
	}
	n := int32(x.m.Score)
	return &n
}

type policyResolver struct{ p *Policy }

func (x *policyResolver) ID() graphql.ID    { return graphql.ID(x.p.ID) }
func (x *policyResolver) Kind() string      { return x.p.Kind }
func (x *policyResolver) Namespace() string { return x.p.Namespace }
func (x *policyResolver) Name() string      { return x.p.Name }
func (x *policyResolver) Mode() string      { return string(x.p.Mode) }
func (x *policyResolver) AppliesTo() int32  { return int32(min(x.p.AppliesTo, math.MaxInt32)) }

func (x *policyResolver) BlocksLastHour() *int32 {
	if x.p.BlocksLastHour == nil {
		return nil
	}
	n := int32(min(*x.p.BlocksLastHour, math.MaxInt32))
	return &n
}

type statsResolver struct{ s FlowStats }

func (x *statsResolver) TotalFlows() float64   { return float64(x.s.Total) }
func (x *statsResolver) BlockedFlows() float64 { return float64(x.s.Blocked) }
func (x *statsResolver) Bytes() float64        { return float64(x.s.Bytes) }

func (x *statsResolver) TopTalkers() []*talkerResolver {
	list := make([]*talkerResolver, len(x.s.Talkers))
	for i := range x.s.Talkers {
		list[i] = &talkerResolver{&x.s.Talkers[i]}
	}
	return list
}

type talkerResolver struct{ t *Talker }

func (x *talkerResolver) SourceIp() string { return x.t.Source.String() } //nolint:revive // the schema's name
func (x *talkerResolver) Bytes() float64   { return float64(x.t.Bytes) }
func (x *talkerResolver) Flows() float64   { return float64(x.t.Flows) }
