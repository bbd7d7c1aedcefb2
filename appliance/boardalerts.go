package appliance

import (
	"context"
	"time"

	"patronus/appliance/console"
	"patronus/appliance/ledger"
	"patronus/configs"
	"patronus/dashboard/alert"
	"patronus/dashboard/control"
)

// boardAlerts are the alerts of a dashboard: what is firing, and what would
// have fired. It implements dashboard.Alerts.
type boardAlerts struct {
	*alert.Keeper
	history alert.History
}

// Backtest implements dashboard.Alerts.
func (a *boardAlerts) Backtest(ctx context.Context, r configs.AlertRule, from, to time.Time) (alert.Trial, error) {
	return alert.Backtest(ctx, a.history, r, from, to)
}

// alerts opens the keeper of alerts over what the console knows.
func (b *Board) alerts(ctx context.Context, l *ledger.Ledger, plane *control.Plane, con *console.Console, self string) (*boardAlerts, error) {
	k, err := alert.Open(ctx, alert.Options{
		Ledger: l, Log: b.log, Facts: con.Facts, Past: con.PastAlerts,
		Alerts: func() *configs.Alerts { return plane.Current().Network.Alerting() },
		Tell:   func(ctx context.Context, a *alert.Alert) error { return con.Tell(ctx, self, a) },
	})
	if err != nil {
		return nil, err
	}
	return &boardAlerts{Keeper: k, history: con}, nil
}
