package ledger

import (
	"slices"
	"strings"
	"sync"
)

// watchers deliver changes in the order of commits, one at a time, on the
// goroutine of whoever committed and found nobody delivering.
type watchers struct {
	mu         sync.Mutex
	all        []*watcher
	queue      [][]string
	delivering bool
}

type watcher struct {
	prefix string
	f      func(keys []string)
}

// Watch calls f after each commit that changed keys which begin with prefix,
// with those keys in order. Calls follow the order of commits and never
// overlap; they are made by committing goroutines, so a slow f delays Updates.
// f may call the ledger. stop ends it; a call in progress then goes on.
func (l *Ledger) Watch(prefix string, f func(keys []string)) (stop func()) {
	w := &watcher{prefix, f}
	l.watch.mu.Lock()
	defer l.watch.mu.Unlock()
	l.watch.all = append(l.watch.all, w)
	return func() {
		l.watch.mu.Lock()
		defer l.watch.mu.Unlock()
		l.watch.all = slices.DeleteFunc(slices.Clone(l.watch.all), func(o *watcher) bool { return o == w })
	}
}

// add queues a commit's keys; the caller holds committing.
func (w *watchers) add(keys []string) {
	slices.Sort(keys)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.all) > 0 {
		w.queue = append(w.queue, keys)
	}
}

// deliver empties the queue, unless another call is doing so.
func (w *watchers) deliver() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.delivering {
		return
	}
	w.delivering = true
	defer func() { w.delivering = false }()
	for len(w.queue) > 0 {
		keys, all := w.queue[0], slices.Clone(w.all)
		w.queue = w.queue[1:]
		w.call(all, keys)
	}
}

// call runs the watchers without the lock, which it has again on return even
// if one of them panics.
func (w *watchers) call(all []*watcher, keys []string) {
	w.mu.Unlock()
	defer w.mu.Lock()
	for _, one := range all {
		var of []string
		for _, key := range keys {
			if strings.HasPrefix(key, one.prefix) {
				of = append(of, key)
			}
		}
		if len(of) > 0 {
			one.f(of)
		}
	}
}
