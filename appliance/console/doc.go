// Package console owns what a promoted appliance knows of its fabric, in the
// words of the dashboard: the states of sites, what was recorded, and a way to
// ask each site's edge.
//
// It decides nothing and speaks no HTTP to people (package dashboard), collects
// no history (dashboard/collect) and keeps none (appliance/store).
//
//	edges, near and far -- Edge.Status, every few seconds --> States
//	store -- Tail --> live.Hub                   store -- Range, Flows, Events, StateAt --> History, Events
//	dashboard -- Explain, Reevaluate, TestPath, Capture --> the site's Edge
//
// A Console is safe for concurrent use. What States returns is immutable.
package console
