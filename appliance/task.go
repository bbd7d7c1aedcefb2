package appliance

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// Task is one long-lived goroutine's work. Run returns when ctx ends or when
// the work cannot go on.
type Task interface {
	Run(ctx context.Context) error
	fmt.Stringer
}

// task makes a Task of a function.
type task struct {
	name string
	run  func(ctx context.Context) error
}

func (t task) Run(ctx context.Context) error { return t.run(ctx) }
func (t task) String() string                { return t.name }

// runTasks runs all tasks until ctx ends or one of them fails, which ends the
// others. It returns the first failure; the end of ctx is none.
func runTasks(ctx context.Context, tasks ...Task) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, t := range tasks {
		group.Go(func() error {
			if err := t.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("%s: %w", t, err)
			}
			return nil
		})
	}
	return group.Wait()
}
