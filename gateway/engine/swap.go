package engine

import "errors"

// Swap makes s the snapshot by which exchanges are carried from now on. The old one is closed when its last exchange has
// ended; Swap does not wait for that.
func (e *Engine) Swap(s *Snapshot) {
	e.swaps.Lock()
	defer e.swaps.Unlock()
	for _, f := range s.OnSwap {
		f()
	}
	old := e.current.Swap(s)
	if old == nil {
		return
	}
	old.retire()
	e.closing.Go(func() {
		<-old.drained
		if err := old.close(); err != nil {
			e.Log.Warn("an outdated document did not close cleanly", "version", old.Version, "error", err)
		}
	})
}

// Close closes the current snapshot once its last exchange has ended, and waits for those before it.
func (e *Engine) Close() error {
	e.closing.Wait()
	s := e.current.Load()
	if s == nil {
		return nil
	}
	s.retire()
	<-s.drained
	return s.close()
}

func (s *Snapshot) close() error {
	var errs []error
	for _, f := range s.OnClose {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// pin returns the current snapshot, which will not be closed before unpin. That it is still the current one after it has
// been counted means that retire, which comes after the swap, will see the count.
func (e *Engine) pin(shard uint32) *Snapshot {
	for {
		s := e.current.Load()
		s.pins[shard%pinShards].n.Add(1)
		if e.current.Load() == s {
			return s
		}
		s.unpin(shard)
	}
}

func (s *Snapshot) unpin(shard uint32) {
	s.pins[shard%pinShards].n.Add(-1)
	if s.retired.Load() {
		s.checkDrained()
	}
}

// retire lets the snapshot go once nobody holds it.
func (s *Snapshot) retire() {
	s.retired.Store(true)
	s.checkDrained()
}

func (s *Snapshot) checkDrained() {
	if s.pinned() == 0 {
		s.once.Do(func() { close(s.drained) })
	}
}
