// Package alert owns when a person is called, and that the call arrives: rules
// judged over what is known of paths, sites and blocks, the alerts that come of
// it, silences, and messages with their delivery.
//
// It does not measure, keeps no history of the fabric and speaks no API: facts
// come through [Options], and what it does is asked of a [Keeper].
//
//	facts --> Step (pure) --> alerts --> muted? --> outbox (ledger) --> e-mail, webhook, Slack, PagerDuty
//	              ^                                     |
//	history --> Backtest                           deliveries
//
// [Step] and [Backtest] are functions of what they are given. A Keeper is safe
// for concurrent use; one goroutine of its Run judges, another one sends.
package alert
