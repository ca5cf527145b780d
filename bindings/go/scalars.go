package grapnel

/*
#include "native.h"
*/
import "C"

import (
	"fmt"
	"iter"
)

// Scalars are named numbers, in order: losses, metrics, a record of the log.
// Those that a callback is handed are valid until it returns, empty then, and
// used again in the next call. They are written to only where it says so.
type Scalars struct {
	c     *C.grapnel_scalars // What Add adds to as well, or nil.
	own   bool               // Add needs no c.
	items []scalar
}

// NewScalars returns an empty list: for tests of models and metrics, that a
// callback's would be handed to.
func NewScalars() *Scalars { return &Scalars{own: true} }

type scalar struct {
	name  string
	value float64
}

// Add adds a number. A name that is there is ErrAlreadyExists.
func (s *Scalars) Add(name string, value float64) error {
	if s.own {
		if _, there := s.Find(name); there {
			return &Error{Code: ErrAlreadyExists, Message: fmt.Sprintf("scalars: %q is there", name)}
		}
		s.items = append(s.items, scalar{name, value})
		return nil
	}
	if s.c == nil {
		return gone("scalars")
	}
	p, n := chars(name)
	if err := take(C.grapnel_scalars_add(s.c, p, n, C.double(value))); err != nil {
		return err
	}
	s.items = append(s.items, scalar{name, value})
	return nil
}

// Len returns how many there are.
func (s *Scalars) Len() int { return len(s.items) }

// At returns the name and the value of an index, 0 <= i < s.Len(); "" and 0 for
// others.
func (s *Scalars) At(i int) (string, float64) {
	if i < 0 || i >= len(s.items) {
		return "", 0
	}
	return s.items[i].name, s.items[i].value
}

// Find returns the value of a name, and whether there is one.
func (s *Scalars) Find(name string) (float64, bool) {
	for i := range s.items {
		if s.items[i].name == name {
			return s.items[i].value, true
		}
	}
	return 0, false
}

// All goes through names and values in order.
func (s *Scalars) All() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		for _, it := range s.items {
			if !yield(it.name, it.value) {
				return
			}
		}
	}
}

// fill copies what C has. Names are mostly those of the last time.
func (s *Scalars) fill(c *C.grapnel_scalars) *Scalars {
	n := int(C.grapnel_scalars_size(c))
	if cap(s.items) < n {
		s.items = make([]scalar, n)
	}
	s.items = s.items[:n]
	for i := range s.items {
		it := C.grapnel_go_scalars_at(c, C.int64_t(i))
		s.items[i].name = again(s.items[i].name, it.name, it.name_size)
		s.items[i].value = float64(it.value)
	}
	return s
}

// lend makes s what Add adds to, until expire.
func (s *Scalars) lend(c *C.grapnel_scalars) *Scalars {
	s.c, s.items = c, s.items[:0]
	return s
}

// expire empties s, but for the names' memory.
func (s *Scalars) expire() { s.c, s.items = nil, s.items[:0] }
