package grapnel

import (
	"sync"
	"sync/atomic"
)

// slots gives integers to objects, which C may keep as it may not keep pointers
// of Go's. As cgo.Handle, but for one type, and get is two loads: it is on the
// way of every callback.
type slots[T any] struct {
	mu    sync.Mutex
	table atomic.Pointer[[]*T] // Never written to: add and remove make another.
}

// add returns an integer for an object, >= 1.
func (s *slots[T]) add(object *T) uintptr {
	s.mu.Lock()
	defer s.mu.Unlock()
	table := s.copied()
	for i, it := range table {
		if it == nil {
			table[i] = object
			s.table.Store(&table)
			return uintptr(i) + 1
		}
	}
	table = append(table, object)
	s.table.Store(&table)
	return uintptr(len(table))
}

func (s *slots[T]) get(slot uintptr) *T { return (*s.table.Load())[slot-1] }

func (s *slots[T]) remove(slot uintptr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	table := s.copied()
	table[slot-1] = nil
	s.table.Store(&table)
}

func (s *slots[T]) copied() []*T {
	if old := s.table.Load(); old != nil {
		return append([]*T(nil), *old...)
	}
	return nil
}
