// Package crowd keeps the connections of one server, so that all can be told something and waited for.
package crowd

import (
	"context"
	"iter"
	"sync"
)

// Of is a crowd of connections that run. The zero value is an empty one. It is safe for concurrent use.
type Of[C comparable] struct {
	members sync.Map // C -> nothing
	running sync.WaitGroup
}

// Join makes a connection a member until Leave.
func (o *Of[C]) Join(c C) {
	o.running.Add(1)
	o.members.Store(c, nil)
}

// Leave is called once for each member.
func (o *Of[C]) Leave(c C) {
	o.members.Delete(c)
	o.running.Done()
}

// Go runs a connection on a goroutine of its own; it is a member until run returns.
func (o *Of[C]) Go(c C, run func()) {
	o.Join(c)
	go func() {
		defer o.Leave(c)
		run()
	}()
}

// All yields the members of this moment; those that come or leave meanwhile may or may not be among them.
func (o *Of[C]) All() iter.Seq[C] {
	return func(yield func(C) bool) {
		o.members.Range(func(k, _ any) bool {
			c, ok := k.(C)
			return ok && yield(c)
		})
	}
}

// Wait returns when every member has left. Those that have not when the context is done are cut off, and counted.
func (o *Of[C]) Wait(ctx context.Context, cut func(C)) (n int) {
	left := make(chan struct{})
	go func() {
		o.running.Wait()
		close(left)
	}()
	select {
	case <-left:
		return 0
	case <-ctx.Done():
	}
	for c := range o.All() {
		n++
		cut(c)
	}
	<-left
	return n
}
