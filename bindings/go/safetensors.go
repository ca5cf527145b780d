package grapnel

/*
#include <grapnel/grapnel.h>
*/
import "C"

import "runtime"

// ReadSafetensors reads a file of safetensors, in its order.
func ReadSafetensors(path string) (*Tensors, error) {
	ts, err := NewTensors()
	if err != nil {
		return nil, err
	}
	p, n := chars(path)
	if err := take(C.grapnel_safetensors_read(p, n, ts.c)); err != nil {
		ts.Close()
		return nil, err
	}
	return ts, nil
}

// WriteSafetensors writes a file of safetensors. It is there whole, or as it was
// before.
func WriteSafetensors(path string, tensors *Tensors) error {
	if err := tensors.there("tensors"); err != nil {
		return err
	}
	p, n := chars(path)
	err := take(C.grapnel_safetensors_write(p, n, tensors.c))
	runtime.KeepAlive(tensors)
	return err
}
