package policy

import (
	"fmt"
	"io"
	"sync"
)

// Keeper holds state that must outlive a reload. Every compiled unit that asks for a value holds a lease on it; the
// value is dropped, and closed if it is an io.Closer, when the last lease is returned.
type Keeper struct {
	mu     sync.Mutex
	values map[string]*kept
}

type kept struct {
	value  any
	leases int
}

// NewKeeper returns an empty keeper.
func NewKeeper() *Keeper { return &Keeper{values: map[string]*kept{}} }

// Len returns how many values are held.
func (k *Keeper) Len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.values)
}

// Lease collects what one compiled unit keeps. Use one Keeper.Lease for each unit and Release it when the unit closes.
type Lease struct {
	keeper *Keeper
	keys   []string
}

// Lease begins a unit's list of kept values.
func (k *Keeper) Lease() *Lease { return &Lease{keeper: k} }

// Release returns every value of the lease.
func (l *Lease) Release() error {
	l.keeper.mu.Lock()
	defer l.keeper.mu.Unlock()
	var first error
	for _, key := range l.keys {
		v := l.keeper.values[key]
		if v.leases--; v.leases > 0 {
			continue
		}
		delete(l.keeper.values, key)
		if c, ok := v.value.(io.Closer); ok {
			if err := c.Close(); err != nil && first == nil {
				first = err
			}
		}
	}
	l.keys = nil
	return first
}

// Keep returns the value of that name that this instance had before the reload, or a fresh one. The type is part of the
// name: after an upgrade that changes it the value starts afresh.
func Keep[T any](e Env, name string, fresh func() T) T {
	key := fmt.Sprintf("%s/%s/%T", e.Instance, name, *new(T))
	k := e.Keep.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	v := k.values[key]
	if v == nil {
		v = &kept{value: fresh()}
		k.values[key] = v
	}
	v.leases++
	e.Keep.keys = append(e.Keep.keys, key)
	return v.value.(T)
}
