package dashboard

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"patronus/appliance/ledger"
	"patronus/dashboard/auth"
)

func auditRoutes() []Route {
	return []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/audit", Name: "listAudit", Access: fabric(auth.ViewAudit), Status: 200,
			Doc: "List what people did, the oldest first unless asked otherwise.", Answer: Page[AuditEntry]{},
			Query: []Param{
				{"user", "string", "who did it"},
				{"action", "string", "what was done"},
				{"resource_type", "string", "to what kind of thing"},
				{"resource_id", "string", "to which"},
				{"from", "date-time", "start"},
				{"to", "date-time", "end"},
				{"newest", "boolean", "the newest first"},
				{"limit", "integer", "1 to 1000; default 100"},
				{"cursor", "string", "of the next page"},
			},
			handle: (*Server).listAudit,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/audit/verify", Name: "verifyAudit", Access: fabric(auth.ViewAudit), Status: 200,
			Doc: "Check the chain of the audit log from its first record.", Answer: AuditVerdict{}, handle: (*Server).verifyAudit,
		},
	}
}

// AuditEntry is one record of the audit log.
type AuditEntry struct {
	Seq          uint64       `json:"seq"`
	At           time.Time    `json:"timestamp"`
	User         string       `json:"user_id"`
	Action       string       `json:"action"`
	ResourceType string       `json:"resource_type"`
	ResourceID   string       `json:"resource_id,omitempty"`
	Changes      AuditChanges `json:"changes"`
	IP           string       `json:"ip_address,omitempty"`
	UserAgent    string       `json:"user_agent,omitempty"`
	Outcome      string       `json:"outcome"`
}

// AuditChanges is what a resource was before and after, null for nothing.
type AuditChanges struct {
	Before json.RawMessage `json:"before"`
	After  json.RawMessage `json:"after"`
}

// AuditVerdict says whether the chain holds.
type AuditVerdict struct {
	Intact  bool   `json:"intact"`
	Records uint64 `json:"records"`
	Why     string `json:"why,omitempty"`
}

// auditRecord begins a record of what a request does.
func (s *Server) auditRecord(r *request, action, kind, id string) ledger.AuditRecord {
	return ledger.AuditRecord{
		At: s.now(), User: r.actor.User, Action: action, ResourceType: kind, ResourceID: id,
		IP: r.actor.Client.Addr, UserAgent: r.actor.Client.UserAgent, Outcome: "ok",
	}
}

// audit writes down something that was tried, and returns did: the error of
// the try. What cannot be written down is an error too.
func (s *Server) audit(r *request, action, kind, id string, before, after any, did error) error {
	rec := s.auditRecord(r, action, kind, id)
	if did != nil {
		rec.Outcome = "failed"
	}
	for _, x := range []struct {
		v  any
		to *json.RawMessage
	}{{before, &rec.Before}, {after, &rec.After}} {
		if x.v == nil {
			continue
		}
		text, err := json.Marshal(x.v)
		if err != nil {
			return fmt.Errorf("audit %s: %w", action, err)
		}
		*x.to = text
	}
	if err := s.o.Ledger.Update(r.UserContext(), func(tx *ledger.Tx) error { return tx.Audit(rec) }); err != nil {
		return fmt.Errorf("audit %s: %w", action, err)
	}
	return did
}

func (s *Server) listAudit(r *request) error {
	limit, err := r.number("limit", defaultStored, 1, maxStored)
	if err != nil {
		return err
	}
	var after uint64
	if c := r.Query("cursor"); c != "" {
		if after, err = strconv.ParseUint(c, 10, 64); err != nil {
			return invalid("cursor", "is not one that this list gave")
		}
	}
	from, err := r.time("from")
	if err != nil {
		return err
	}
	to, err := r.time("to")
	if err != nil {
		return err
	}
	filter := ledger.AuditFilter{
		User: r.Query("user"), Action: r.Query("action"), ResourceType: r.Query("resource_type"), ResourceID: r.Query("resource_id"),
		From: from, To: to,
	}
	if filter.Newest, err = r.flag("newest"); err != nil {
		return err
	}
	defer s.meter.query("list_audit")()
	records, err := s.o.Ledger.Audits(filter, after, limit)
	if err != nil {
		return err
	}
	page := Page[AuditEntry]{Items: make([]AuditEntry, 0, len(records))}
	for _, a := range records {
		page.Items = append(page.Items, auditEntry(a))
	}
	if len(records) == limit {
		page.Next = strconv.FormatUint(page.Items[limit-1].Seq, 10)
	}
	return r.answer(http.StatusOK, page)
}

func auditEntry(a ledger.AuditRecord) AuditEntry {
	e := AuditEntry{
		Seq: a.Seq, At: a.At, User: a.User, Action: a.Action, ResourceType: a.ResourceType, ResourceID: a.ResourceID,
		Changes: AuditChanges{Before: a.Before, After: a.After}, IP: a.IP, UserAgent: a.UserAgent, Outcome: a.Outcome,
	}
	for _, t := range []*json.RawMessage{&e.Changes.Before, &e.Changes.After} {
		if len(*t) == 0 {
			*t = json.RawMessage("null")
		}
	}
	return e
}

func (s *Server) verifyAudit(r *request) error {
	defer s.meter.query("verify_audit")()
	n, err := s.o.Ledger.VerifyAudit()
	v := AuditVerdict{Intact: err == nil, Records: n}
	if err != nil {
		v.Why = err.Error()
	}
	return r.answer(http.StatusOK, v)
}
