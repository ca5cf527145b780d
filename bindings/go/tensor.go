package grapnel

/*
#include "native.h"
*/
import "C"

import (
	"fmt"
	"runtime"
	"unsafe"
)

// A Tensor is a reference to a tensor on any device.
//
// One that a callback is handed is valid until the callback returns, and may be
// handed out again in the next call, for another tensor; [Tensor.Share] gives a
// reference to keep. One that a function returns is the caller's, and Go lets go
// of it when it is unreachable; Close does so at once. A Tensor is for one
// goroutine at a time. A nil one, as [Tensors.Find] returns for a name that isn't
// there, is an error to use.
type Tensor struct {
	c        *C.grapnel_tensor // nil once closed, or the callback has returned.
	owned    bool
	readOnly bool
	owner    any // Keeps alive what c is borrowed from.
}

// maxRank is how many dimensions a new tensor can have.
const maxRank = C.GRAPNEL_GO_RANK

// NewTensor copies row-major elements; their number is the product of shape. No
// shape is one element. A tensor made here has at most 8 dimensions.
func NewTensor[T Element](data []T, shape ...int) (*Tensor, error) {
	sizes, rank, err := shapeOf(shape)
	if err != nil {
		return nil, err
	}
	p, n := elementsOf(data)
	return tookTensor(C.grapnel_go_tensor_create(C.grapnel_dtype(DTypeOf[T]()), sizes, rank, p, n),
		take)
}

// Values copies the elements, row-major, from any device, and waits for it.
func Values[T Element](t *Tensor) ([]T, error) {
	elements, err := t.elements(DTypeOf[T]())
	if err != nil {
		return nil, err
	}
	values := make([]T, elements.numel)
	p, n := elementsOf(values)
	err = take(C.grapnel_tensor_read(t.c, p, n))
	runtime.KeepAlive(t)
	if err != nil {
		return nil, err
	}
	return values, nil
}

// Data returns the elements themselves, row-major: no copy. An error where they
// don't lie in host memory without gaps; [Values] can copy those.
//
// The slice is the tensor's memory, of which Go knows nothing: it is valid until
// the callback returns that was handed the tensor, or as long as the tensor is
// reachable and not closed. It is written to only where the tensor may be: not
// in batches and predictions.
func Data[T Element](t *Tensor) ([]T, error) {
	elements, err := t.elements(DTypeOf[T]())
	if err != nil {
		return nil, err
	}
	if elements.numel == 0 {
		return nil, nil
	}
	if elements.data == nil {
		return nil, &Error{
			Code:    ErrFailedPrecondition,
			Message: "tensor: its elements don't lie in host memory, row-major and without gaps",
		}
	}
	return unsafe.Slice((*T)(elements.data), elements.numel), nil
}

// SetValues copies elements into the tensor's memory.
func SetValues[T Element](t *Tensor, data []T) error {
	if _, err := t.elements(DTypeOf[T]()); err != nil {
		return err
	}
	if t.readOnly {
		return &Error{Code: ErrFailedPrecondition, Message: "tensor: it is to be read only"}
	}
	p, n := elementsOf(data)
	err := take(C.grapnel_tensor_write(t.c, p, n))
	runtime.KeepAlive(t)
	return err
}

// DType returns the type of the elements, 0 if t is nil or closed.
func (t *Tensor) DType() DType {
	if t == nil || t.c == nil {
		return 0
	}
	dtype := DType(C.grapnel_tensor_dtype(t.c))
	runtime.KeepAlive(t)
	return dtype
}

// Shape returns a copy of the size of each dimension.
func (t *Tensor) Shape() []int { return t.AppendShape(nil) }

// AppendShape appends the size of each dimension to shape: for loops that keep a
// slice.
func (t *Tensor) AppendShape(shape []int) []int {
	if t == nil || t.c == nil {
		return shape
	}
	sizes := C.grapnel_tensor_shape(t.c)
	for _, n := range unsafe.Slice(sizes, C.grapnel_tensor_rank(t.c)) {
		shape = append(shape, int(n))
	}
	runtime.KeepAlive(t)
	return shape
}

// Len returns the number of elements.
func (t *Tensor) Len() int {
	if t == nil || t.c == nil {
		return 0
	}
	n := int(C.grapnel_tensor_numel(t.c))
	runtime.KeepAlive(t)
	return n
}

// Share returns another reference to the same memory, to keep and to close.
func (t *Tensor) Share() (*Tensor, error) {
	if err := t.check("tensor"); err != nil {
		return nil, err
	}
	shared, err := tookTensor(C.grapnel_go_tensor_share(t.c), take)
	runtime.KeepAlive(t)
	if err != nil {
		return nil, err
	}
	shared.readOnly = t.readOnly
	return shared, nil
}

// Close lets go of this reference. It may be called twice; without it Go's
// garbage collector does it some time, which knows nothing of the memory's size.
func (t *Tensor) Close() error {
	if t == nil || !t.owned {
		return nil // What is lent goes with its callback or its owner.
	}
	runtime.SetFinalizer(t, nil)
	t.destroy()
	return nil
}

func (t *Tensor) destroy() {
	C.grapnel_tensor_destroy(t.c)
	t.c = nil
}

// String describes the tensor: "float32 [64 1 8 8]".
func (t *Tensor) String() string {
	switch {
	case t == nil:
		return "no tensor"
	case t.c == nil:
		return "closed tensor"
	}
	return fmt.Sprint(t.DType(), " ", t.Shape())
}

// check returns why there is nothing to use. A name that Tensors.Find hasn't
// found gives nil.
func (t *Tensor) check(what string) error {
	switch {
	case t == nil:
		return missing(what)
	case t.c == nil:
		return gone(what)
	default:
		return nil
	}
}

// elements returns where they lie, if they are of that type.
func (t *Tensor) elements(want DType) (C.grapnel_go_elements, error) {
	if err := t.check("tensor"); err != nil {
		return C.grapnel_go_elements{}, err
	}
	elements := C.grapnel_go_tensor_elements(t.c)
	runtime.KeepAlive(t)
	if DType(elements.dtype) != want {
		return elements, invalid("tensor: its elements are %v, not %v", DType(elements.dtype), want)
	}
	return elements, nil
}

// tookTensor takes a tensor that C gave.
func tookTensor(out C.grapnel_go_handle, take func(*C.grapnel_status) error) (*Tensor, error) {
	if out.status != nil {
		return nil, take(out.status)
	}
	return ownedTensor(out), nil
}

func ownedTensor(out C.grapnel_go_handle) *Tensor {
	t := &Tensor{c: (*C.grapnel_tensor)(out.object), owned: true}
	runtime.SetFinalizer(t, (*Tensor).destroy)
	return t
}

// shapeOf passes a shape by value, so that it need not be on the heap.
func shapeOf(shape []int) (sizes C.grapnel_go_shape, rank C.int32_t, err error) {
	if len(shape) > maxRank {
		return sizes, 0, invalid("shape: has %d dimensions, at most %d are possible", len(shape), maxRank)
	}
	for i, n := range shape {
		sizes.sizes[i] = C.int64_t(n)
	}
	return sizes, C.int32_t(len(shape)), nil
}
