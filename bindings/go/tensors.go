package grapnel

/*
#include "native.h"
*/
import "C"

import (
	"iter"
	"runtime"
	"strings"
	"unsafe"
)

// Tensors are named tensors, in order: a sample, a batch, a model's weights.
//
// Those that a callback is handed are valid until it returns, and are used again
// in the next call. Those that a function returns are the caller's, as with
// [Tensor]. They are for one goroutine at a time.
type Tensors struct {
	c        *C.grapnel_tensors // nil once closed, or the callback has returned.
	readOnly bool
	owner    any // Has the finalizer of what c is, or is borrowed from; or nil.

	// Handed out since c was set, then those of before, to be handed out again.
	lent  []*Tensor
	used  int
	names []string // By index; those of the last batch are mostly right.
}

// NewTensors returns an empty list, for [Add], [AddNew] and Tensors.Add.
func NewTensors() (*Tensors, error) {
	out := C.grapnel_go_tensors_create()
	if out.status != nil {
		return nil, take(out.status)
	}
	owner := &tensorsOwner{(*C.grapnel_tensors)(out.object)}
	runtime.SetFinalizer(owner, (*tensorsOwner).destroy)
	return &Tensors{c: owner.c, owner: owner}, nil
}

// tensorsOwner has the finalizer, and no pointers back: cycles with one are not
// collected.
type tensorsOwner struct{ c *C.grapnel_tensors }

func (o *tensorsOwner) destroy() { C.grapnel_tensors_destroy(o.c) }

// AddNew adds a tensor of that shape, no shape being one element, and returns
// its memory, row-major, to be filled at once: before the callback returns that
// was handed ts, or while ts is reachable and not closed. The elements have no values before,
// except that bools are false. It is the way to make a batch that costs no copy.
func AddNew[T Element](ts *Tensors, name string, shape ...int) ([]T, error) {
	if err := ts.check(); err != nil {
		return nil, err
	}
	sizes, rank, err := shapeOf(shape)
	if err != nil {
		return nil, err
	}
	p, n := chars(name)
	out := C.grapnel_go_tensors_add_new(ts.c, p, n, C.grapnel_dtype(DTypeOf[T]()), sizes, rank)
	runtime.KeepAlive(ts)
	if out.status != nil {
		return nil, take(out.status)
	}
	numel := 1
	for _, n := range shape {
		numel *= n
	}
	if numel == 0 {
		return nil, nil
	}
	if DTypeOf[T]() == DTypeBool { // Other bytes than 0 and 1 are no bools of Go's.
		clear(unsafe.Slice((*byte)(out.object), numel))
	}
	return unsafe.Slice((*T)(out.object), numel), nil
}

// Add adds a tensor with a copy of row-major elements; their number is the
// product of shape. No shape is one element.
func Add[T Element](ts *Tensors, name string, data []T, shape ...int) error {
	if err := ts.check(); err != nil {
		return err
	}
	sizes, rank, err := shapeOf(shape)
	if err != nil {
		return err
	}
	p, n := chars(name)
	elements, size := elementsOf(data)
	status := C.grapnel_go_tensors_add_copy(ts.c, p, n, C.grapnel_dtype(DTypeOf[T]()), sizes, rank,
		elements, size)
	runtime.KeepAlive(ts)
	return take(status)
}

// AddScalar adds a tensor of one element and no dimensions.
func AddScalar[T Element](ts *Tensors, name string, value T) error {
	element, err := AddNew[T](ts, name)
	if err != nil {
		return err
	}
	element[0] = value
	runtime.KeepAlive(ts)
	return nil
}

// Add adds another reference to the memory of t. Who gets ts may write to it,
// also where t is to be read only.
func (ts *Tensors) Add(name string, t *Tensor) error {
	if err := ts.check(); err != nil {
		return err
	}
	if err := t.check("tensor"); err != nil {
		return within(name, err)
	}
	p, n := chars(name)
	err := take(C.grapnel_go_tensors_add_shared(ts.c, p, n, t.c))
	runtime.KeepAlive(ts)
	runtime.KeepAlive(t)
	return err
}

// Len returns how many there are.
func (ts *Tensors) Len() int {
	if ts == nil || ts.c == nil {
		return 0
	}
	n := int(C.grapnel_tensors_size(ts.c))
	runtime.KeepAlive(ts)
	return n
}

// At returns the name and the tensor of an index, 0 <= i < ts.Len(); "" and nil
// for others. The tensor is borrowed from ts.
func (ts *Tensors) At(i int) (string, *Tensor) {
	if ts == nil || ts.c == nil {
		return "", nil
	}
	c := C.grapnel_tensors_at(ts.c, C.int64_t(i))
	if c == nil {
		return "", nil
	}
	name := C.grapnel_tensors_name(ts.c, C.int64_t(i))
	for len(ts.names) <= i {
		ts.names = append(ts.names, "")
	}
	ts.names[i] = again(ts.names[i], name, C.strlen(name))
	return ts.names[i], ts.lend(c)
}

// Find returns the tensor of a name, borrowed from ts, or nil if there is none.
func (ts *Tensors) Find(name string) *Tensor {
	if ts == nil || ts.c == nil {
		return nil
	}
	p, n := chars(name)
	c := C.grapnel_tensors_find(ts.c, p, n)
	if c == nil {
		return nil
	}
	return ts.lend(c)
}

// All goes through names and tensors, which are borrowed from ts, in order.
func (ts *Tensors) All() iter.Seq2[string, *Tensor] {
	return func(yield func(string, *Tensor) bool) {
		for i := range ts.Len() {
			if !yield(ts.At(i)) {
				return
			}
		}
	}
}

// Close lets go of the list, and of its references to the tensors.
func (ts *Tensors) Close() error {
	if ts == nil {
		return nil
	}
	owner, ok := ts.owner.(*tensorsOwner)
	if !ok || ts.c == nil {
		return nil // What is lent goes with its callback or its owner.
	}
	runtime.SetFinalizer(owner, nil)
	owner.destroy()
	ts.expire()
	return nil
}

// there returns why there is nothing to use.
func (ts *Tensors) there(what string) error {
	switch {
	case ts == nil:
		return missing(what)
	case ts.c == nil:
		return gone(what)
	default:
		return nil
	}
}

// check returns why nothing can be added.
func (ts *Tensors) check() error {
	if err := ts.there("tensors"); err != nil {
		return err
	}
	if ts.readOnly {
		return &Error{Code: ErrFailedPrecondition, Message: "tensors: they are to be read only"}
	}
	return nil
}

// lend returns a Tensor for one of ts's, the same for the same.
func (ts *Tensors) lend(c *C.grapnel_tensor) *Tensor {
	for _, t := range ts.lent[:ts.used] {
		if t.c == c {
			return t
		}
	}
	if ts.used == len(ts.lent) {
		ts.lent = append(ts.lent, &Tensor{owner: ts.owner})
	}
	t := ts.lent[ts.used]
	ts.used++
	t.c, t.readOnly = c, ts.readOnly
	return t
}

// borrow sets what ts is, until expire.
func (ts *Tensors) borrow(c *C.grapnel_tensors, readOnly bool) *Tensors {
	ts.c, ts.readOnly = c, readOnly
	return ts
}

// expire makes every use from now on an error.
func (ts *Tensors) expire() {
	ts.c = nil
	for _, t := range ts.lent[:ts.used] {
		t.c = nil
	}
	ts.used = 0
}

// again returns text of C's as a string: last, if it is that.
func again(last string, text *C.char, size C.size_t) string {
	s := unsafe.String((*byte)(unsafe.Pointer(text)), size)
	if s == last {
		return last
	}
	return strings.Clone(s)
}
