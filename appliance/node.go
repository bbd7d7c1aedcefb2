package appliance

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"patronus/netstack"
)

// nodeRecent is how many events a node keeps in memory.
const nodeRecent = 4096

// Node owns what may die without traffic noticing: it reads the edge's
// telemetry and holds no keys and no sockets of its own. It reaches the overlay
// through the edge only.
type Node struct {
	edge *EdgeClient
	log  *slog.Logger

	mu     sync.Mutex
	recent []netstack.Event // ring
	next   uint64
}

// NewNode builds a node over its edge.
func NewNode(edge *EdgeClient, log *slog.Logger) *Node {
	return &Node{edge: edge, log: log, recent: make([]netstack.Event, nodeRecent)}
}

// Run follows the edge until ctx ends. An edge that is away is waited for.
func (n *Node) Run(ctx context.Context) error {
	const retry = 200 * time.Millisecond
	wait := time.NewTicker(retry)
	defer wait.Stop()
	for {
		err := n.edge.Telemetry(ctx, n.take)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n.log.Debug("telemetry interrupted", "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wait.C:
		}
	}
}

func (n *Node) take(ev netstack.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.recent[n.next%nodeRecent] = ev
	n.next++
}

// Events are the newest events, oldest first, at most limit.
func (n *Node) Events(limit int) []netstack.Event {
	n.mu.Lock()
	defer n.mu.Unlock()
	have := min(n.next, nodeRecent, uint64(max(limit, 0)))
	out := make([]netstack.Event, 0, have)
	for i := n.next - have; i < n.next; i++ {
		out = append(out, n.recent[i%nodeRecent])
	}
	return out
}

// RunNode is the node child.
func RunNode(ctx context.Context, dataDir string, log *slog.Logger) error {
	if err := confine(dataDir); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	edge := NewEdgeClient(EdgeSocket(dataDir))
	defer edge.Close()
	return runTasks(ctx, task{"node", NewNode(edge, log).Run})
}
