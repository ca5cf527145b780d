package grapnel

/*
#include "native.h"
*/
import "C"

import (
	"runtime"
	"unsafe"
)

// FromDLPack shares the memory of a DLManagedTensorVersioned of DLPack 1.x, no
// copy. The struct is taken, unless an error is returned: its deleter runs once,
// when the last reference to the memory goes, on any thread.
func FromDLPack(managed unsafe.Pointer) (*Tensor, error) {
	return tookTensor(C.grapnel_go_tensor_from_dlpack(managed), take)
}

// DLPack shares the tensor's memory, no copy, as a DLManagedTensorVersioned
// whose deleter the caller calls. The memory stays until then.
func (t *Tensor) DLPack() (unsafe.Pointer, error) {
	if err := t.check("tensor"); err != nil {
		return nil, err
	}
	out := C.grapnel_go_tensor_to_dlpack(t.c)
	runtime.KeepAlive(t)
	if out.status != nil {
		return nil, take(out.status)
	}
	return out.object, nil
}
