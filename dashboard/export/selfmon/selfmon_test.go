package selfmon

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestNames(t *testing.T) {
	m := New(func() Totals { return Totals{3, 6, 1000, 4} })
	m.Request("GET", "/api/v1/sites", 200, 30*time.Millisecond)
	m.Request("BREW", "/api/v1/sites", 42, time.Millisecond)
	m.Socket("metrics", 1)
	m.Messages("metrics", Inbound, 2)
	done := m.Query("list_sites")
	want := `
# HELP dashboard_active_flows_total Flows that are active at all sites. It may fall.
# TYPE dashboard_active_flows_total untyped
dashboard_active_flows_total 1000
# HELP dashboard_db_connections_active Queries to the dashboard's store that are being answered. The store is embedded: it has no other connections.
# TYPE dashboard_db_connections_active gauge
dashboard_db_connections_active 1
# HELP dashboard_http_requests_total HTTP requests answered, by route template.
# TYPE dashboard_http_requests_total counter
dashboard_http_requests_total{method="GET",path="/api/v1/sites",status="200"} 1
dashboard_http_requests_total{method="other",path="/api/v1/sites",status="other"} 1
# HELP dashboard_paths_total Paths that the dashboard knows. It may fall.
# TYPE dashboard_paths_total untyped
dashboard_paths_total 6
# HELP dashboard_policies_total Policies of the newest revision. It may fall.
# TYPE dashboard_policies_total untyped
dashboard_policies_total 4
# HELP dashboard_sites_total Sites that the dashboard knows. It may fall: the name is a contract, the type is untyped.
# TYPE dashboard_sites_total untyped
dashboard_sites_total 3
# HELP dashboard_websocket_connections Open WebSocket connections, by stream.
# TYPE dashboard_websocket_connections gauge
dashboard_websocket_connections{type="metrics"} 1
# HELP dashboard_websocket_messages_total WebSocket messages, by stream; inbound is from the client, dropped were too many for a slow one.
# TYPE dashboard_websocket_messages_total counter
dashboard_websocket_messages_total{direction="inbound",type="metrics"} 2
`
	names := []string{
		"dashboard_http_requests_total", "dashboard_websocket_connections", "dashboard_websocket_messages_total",
		"dashboard_db_connections_active", "dashboard_sites_total", "dashboard_paths_total", "dashboard_active_flows_total", "dashboard_policies_total",
	}
	if err := testutil.CollectAndCompare(m, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
	done()
	for _, name := range []string{"dashboard_http_request_duration_seconds", "dashboard_db_query_duration_seconds"} {
		if testutil.CollectAndCount(m, name) == 0 {
			t.Errorf("no %s", name)
		}
	}
	problems, err := testutil.CollectAndLint(m)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	if err := prometheus.NewPedanticRegistry().Register(m); err != nil {
		t.Error(err)
	}
}

// However many URLs a scanner tries, the metrics stay as few.
func TestLabelsAreBounded(t *testing.T) {
	m := New(func() Totals { return Totals{} })
	for i := range 10 * maxRoutes {
		m.Request("GET", fmt.Sprintf("/%d", i), 404, 0)
	}
	if n := testutil.CollectAndCount(m, "dashboard_http_requests_total"); n > maxRoutes+1 {
		t.Errorf("%d series", n)
	}
}
