package dashboard

import (
	"bytes"
	"encoding/csv"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"patronus/dashboard/auth"
	"patronus/netstack/flow"
	"patronus/netstack/path"
)

// Pages of lists that are read from the store.
const (
	defaultStored = 100
	maxStored     = 1000
	// maxCSV bounds an export, rows.
	maxCSV = 50_000
)

func flowRoutes() []Route {
	return []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/flows", Name: "listFlows", Access: needs(auth.ViewFlows), Status: 200, Past: true,
			Doc: "List flows, the newest first; as CSV with format=csv.", Answer: Page[Flow]{},
			Query: append(spanQuery()[:3],
				Param{"site", "string", "the site that saw it"}, Param{"src", "string", "address or prefix"}, Param{"dst", "string", "address or prefix"},
				Param{"port", "integer", "destination port"}, Param{"protocol", "string", "name or number"}, Param{"path", "string", "path id"},
				Param{"policy", "string", "policy id"}, Param{"status", "string", "active, blocked or ended"}, Param{"q", "string", "text in addresses, policy or path"},
				Param{"limit", "integer", "1 to 1000; default 100"}, Param{"cursor", "string", "of the next page"}, Param{"format", "string", "json or csv"}),
			handle: (*Server).listFlows,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/flows/:flow_key", Name: "showFlow", Access: needs(auth.ViewFlows), Status: 200, Past: true,
			Doc: "Show one flow with the decision that it was treated under.", Answer: Flow{}, Query: []Param{{"site", "string", "the site that saw it; default any"}}, handle: (*Server).showFlow,
		},
		{
			Method: http.MethodDelete, Path: "/api/v1/flows/:flow_key", Name: "deleteFlow", Access: needs(auth.DeleteFlows), Status: 204,
			Doc: "Have a flow judged again at its next packet.", Query: []Param{{"site", "string", "the site to ask; default the one that saw it last"}}, handle: (*Server).deleteFlow,
		},
	}
}

// flowQuery reads a filter of flows.
func (r *request) flowQuery() (q FlowQuery, err error) {
	q = FlowQuery{Site: r.Query("site"), Protocol: strings.ToLower(r.Query("protocol")), Path: path.ID(r.Query("path")), Status: r.Query("status"), Text: r.Query("q"), Cursor: r.Query("cursor")}
	if q.Src, err = r.prefix("src"); err != nil {
		return q, err
	}
	if q.Dst, err = r.prefix("dst"); err != nil {
		return q, err
	}
	port, err := r.number("port", 0, 1, 65535)
	if err != nil {
		return q, err
	}
	q.Port = uint16(port)
	if id := r.Query("policy"); id != "" {
		if q.Policy = longPolicyID(id); q.Policy == "" {
			return q, invalid("policy", "is not a policy's id, namespace~name")
		}
	}
	switch q.Status {
	case "", "active", "blocked", "ended":
	default:
		return q, invalid("status", "is none of active, blocked, ended")
	}
	if q.Path != "" {
		if _, err := path.ParseID(string(q.Path)); err != nil {
			return q, invalid("path", "is not a path's id")
		}
	}
	args := r.Context().QueryArgs()
	if args.Has("from") || args.Has("to") || args.Has("duration") || !r.at.IsZero() {
		if q.From, q.To, err = r.span(); err != nil {
			return q, err
		}
	}
	q.Limit, err = r.number("limit", defaultStored, 1, maxStored)
	return q, err
}

// prefix reads an address or a prefix.
func (r *request) prefix(name string) (netip.Prefix, error) {
	text := r.Query(name)
	if text == "" {
		return netip.Prefix{}, nil
	}
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, invalid(name, "is neither an address nor a prefix")
	}
	return p.Masked(), nil
}

func (s *Server) listFlows(r *request) error {
	v, err := s.view(r.UserContext())
	if err != nil {
		return err
	}
	q, err := r.flowQuery()
	if err != nil {
		return err
	}
	q.Sees = v.scope(&r.actor)
	if s.o.History == nil {
		return ErrUnavailable
	}
	switch r.Query("format") {
	case "csv":
		return s.flowsCSV(r, q)
	case "", "json":
	default:
		return invalid("format", "is neither json nor csv")
	}
	defer s.meter.query("list_flows")()
	flows, next, err := s.o.History.Flows(r.UserContext(), q)
	if err != nil {
		return err
	}
	if flows == nil {
		flows = []Flow{}
	}
	return r.answer(http.StatusOK, Page[Flow]{Items: flows, Next: next})
}

// flowsCSV is RFC 4180 with a byte order mark, which makes spreadsheets read
// it as UTF-8.
func (s *Server) flowsCSV(r *request, q FlowQuery) error {
	var b bytes.Buffer
	b.WriteString("\ufeff")
	w := csv.NewWriter(&b)
	w.UseCRLF = true
	row := func(cells ...string) error {
		for i := range cells {
			cells[i] = harmless(cells[i])
		}
		return w.Write(cells)
	}
	if err := row("flow_key", "site", "src", "src_port", "dst", "port", "protocol", "status", "class", "path_id", "policy", "packets", "bytes", "created_at", "seen_at"); err != nil {
		return err
	}
	defer s.meter.query("export_flows")()
	q.Limit = maxStored
	n := 0
	for n < maxCSV {
		flows, next, err := s.o.History.Flows(r.UserContext(), q)
		if err != nil {
			return err
		}
		for i := range flows {
			f := &flows[i]
			err := row(f.Key, f.Site, f.Src.String(), strconv.Itoa(int(f.SrcPort)), f.Dst.String(), strconv.Itoa(int(f.Port)), f.Protocol, f.Status, f.Class,
				string(f.Path), f.Policy, strconv.FormatUint(f.Packets, 10), strconv.FormatUint(f.Bytes, 10), f.Created.Format(time.RFC3339), f.Seen.Format(time.RFC3339))
			if err != nil {
				return err
			}
		}
		n += len(flows)
		if next == "" || len(flows) == 0 {
			break
		}
		q.Cursor = next
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return err
	}
	if n >= maxCSV {
		r.Set("X-Truncated", "true")
	}
	r.Set(fiber.HeaderContentType, "text/csv; charset=utf-8; header=present")
	r.Set(fiber.HeaderContentDisposition, `attachment; filename="flows.csv"`)
	return r.Send(b.Bytes())
}

// harmless keeps a spreadsheet from taking a cell for a formula (OWASP, CSV
// injection): what could begin one gets an apostrophe in front.
func harmless(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r\n", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}

// flowOf finds the flow of a request's URL.
func (s *Server) flowOf(r *request) (Flow, error) {
	key := r.Params("flow_key")
	if _, err := flow.ParseKey(key); err != nil {
		return Flow{}, notFound("flow", key)
	}
	if s.o.History == nil {
		return Flow{}, ErrUnavailable
	}
	v, err := s.view(r.UserContext())
	if err != nil {
		return Flow{}, err
	}
	site := r.Query("site")
	if site != "" {
		if err := inScope(v, &r.actor, site); err != nil {
			return Flow{}, err
		}
	}
	defer s.meter.query("show_flow")()
	f, err := s.o.History.Flow(r.UserContext(), site, key, r.at)
	if err != nil {
		return Flow{}, err
	}
	if !v.sees(&r.actor, f.Site) {
		return Flow{}, notFound("flow", key)
	}
	return f, nil
}

func (s *Server) showFlow(r *request) error {
	f, err := s.flowOf(r)
	if err != nil {
		return err
	}
	return r.answer(http.StatusOK, f)
}

func (s *Server) deleteFlow(r *request) error {
	f, err := s.flowOf(r)
	if err != nil {
		return err
	}
	if s.o.Sites == nil {
		return ErrUnavailable
	}
	err = s.o.Sites.Reevaluate(r.UserContext(), f.Site, f.Key)
	if err := s.audit(r, "reevaluate_flow", "flow", f.Key, nil, map[string]string{"site": f.Site}, err); err != nil {
		return err
	}
	return r.SendStatus(http.StatusNoContent)
}
