package appliance

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"patronus/appliance/store"
)

// shelf is a store that is opened when it can be: while it cannot, the rest of
// the node goes on, and somebody is told why.
type shelf struct {
	name string

	mu    sync.Mutex
	store *store.Store
	err   error
}

// open is the store, if it is open.
func (s *shelf) open() (*store.Store, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store, s.store != nil
}

// state is the store, or why there is none.
func (s *shelf) state() (*store.Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store, s.err
}

func (s *shelf) set(st *store.Store, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store, s.err = st, err
}

// keep opens the store and runs use beside its own work until ctx ends. If
// either fails the store is closed and opened again.
func (s *shelf) keep(ctx context.Context, log *slog.Logger, dir string, o store.Options, use func(context.Context, *store.Store) error) error {
	o.Log = log
	retry := storeRetry
	for {
		began := time.Now()
		err := s.once(ctx, dir, o, use)
		s.set(nil, err)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(began) > storeMost {
			retry = storeRetry
		}
		log.Error("store is not open; traffic is not affected", "role", s.name, "err", err, "dur", retry)
		if !sleep(ctx, retry) {
			return ctx.Err()
		}
		retry = min(2*retry, storeMost)
	}
}

func (s *shelf) once(ctx context.Context, dir string, o store.Options, use func(context.Context, *store.Store) error) error {
	st, err := store.Open(dir, o)
	if err != nil {
		return err
	}
	s.set(st, nil)
	err = runTasks(ctx,
		task{"store", st.Run},
		task{"use", func(ctx context.Context) error { return use(ctx, st) }},
	)
	s.set(nil, err)
	if closed := st.Close(); err == nil {
		err = closed
	}
	return err
}
