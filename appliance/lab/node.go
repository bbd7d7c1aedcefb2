package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"patronus/appliance"
)

// nodeState is a site's node, which may be killed and revived while its edge
// goes on.
type nodeState struct {
	dir   string
	board func(site, dir string) appliance.BoardOptions

	mu      sync.Mutex
	node    *appliance.Node
	control *memoryListener
	kill    context.CancelCauseFunc

	dead, revive chan struct{}
}

// equipNode gives a site a node that keeps its history in dir, and a dashboard
// if board is not nil.
func (s *Site) equipNode(dir string, board func(site, dir string) appliance.BoardOptions) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	s.node = &nodeState{dir: dir, board: board, control: newMemoryListener(), dead: make(chan struct{}), revive: make(chan struct{})}
	s.NodeClient = appliance.NewNodeClientFunc(func(ctx context.Context) (net.Conn, error) {
		s.node.mu.Lock()
		l := s.node.control
		s.node.mu.Unlock()
		return l.Dial(ctx)
	})
	return nil
}

// Node is the site's node, nil while it is not running.
func (s *Site) Node() *appliance.Node {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	return s.node.node
}

// errKilled ends a node that KillNode was called for.
var errKilled = errors.New("node was killed")

// runNode runs the site's node until ctx ends. When KillNode is called it waits
// for ReviveNode, as a supervisor that was told to.
func (s *Site) runNode(ctx context.Context) error {
	n := s.node
	for {
		run, kill := context.WithCancelCause(ctx)
		o := appliance.NodeOptions{Edge: s.Client, Dir: n.dir, Logger: s.log}
		if n.board != nil {
			o.Dashboard = appliance.NewBoard(n.board(s.Name, n.dir)).Run
		}
		node := appliance.NewNode(o)
		n.mu.Lock()
		n.node, n.kill = node, kill
		control := n.control
		n.mu.Unlock()
		err := node.Run(run, control)
		killed := errors.Is(context.Cause(run), errKilled)
		kill(nil)
		n.mu.Lock()
		n.node, n.control = nil, newMemoryListener()
		n.mu.Unlock()
		if !killed {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case n.dead <- struct{}{}:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.revive:
		}
	}
}

// KillNode ends the site's node, and returns when it is dead. Its edge goes on.
func (s *Site) KillNode() {
	s.node.mu.Lock()
	kill := s.node.kill
	s.node.mu.Unlock()
	kill(errKilled)
	<-s.node.dead
}

// ReviveNode starts the node again, over the same directory.
func (s *Site) ReviveNode() { s.node.revive <- struct{}{} }

// Promote makes the site's appliance a dashboard, or demotes it, as somebody
// with access to its key does.
func (s *Site) Promote(ctx context.Context, dashboard bool) error {
	_, err := appliance.Promote(ctx, s.NodeClient, s.key, dashboard)
	return err
}
