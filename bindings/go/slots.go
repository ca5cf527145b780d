package grapnel

import (
	"sync"
	"sync/atomic"
)

// slots gives integers to objects, which C may keep as it may not keep pointers
// of Go's. As cgo.Handle, but for one type, and get is two loads: it is on the
// way of every callback.
//
// The upper half of an integer is the number of the runner that the object is of:
// callbacks.c tells by it which runner has called back on a thread.
type slots[T any] struct {
	mu    sync.Mutex
	table atomic.Pointer[[]*T] // Never written to: add and remove make another.
}

// add returns an integer for an object of a runner, or of none, 0.
func (s *slots[T]) add(object *T, runner uint32) uintptr {
	s.mu.Lock()
	defer s.mu.Unlock()
	table := s.copied()
	index := 0
	for index < len(table) && table[index] != nil {
		index++
	}
	if index == len(table) {
		table = append(table, nil)
	}
	table[index] = object
	s.table.Store(&table)
	return uintptr(runner)<<32 | uintptr(index+1)
}

func (s *slots[T]) get(slot uintptr) *T { return (*s.table.Load())[uint32(slot)-1] }

func (s *slots[T]) remove(slot uintptr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	table := s.copied()
	table[uint32(slot)-1] = nil
	s.table.Store(&table)
}

func (s *slots[T]) copied() []*T {
	if old := s.table.Load(); old != nil {
		return append([]*T(nil), *old...)
	}
	return nil
}
