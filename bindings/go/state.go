package grapnel

/*
#include <grapnel/grapnel.h>
*/
import "C"

import (
	"bytes"
	"unsafe"
)

// What a hook or a stream keeps in checkpoints.

type guard = func(what string, callback func() error) *C.grapnel_status

// guard is that of the callback: see callbackErrors.
func saveState(guard guard, from stateful, to *C.grapnel_bytes) *C.grapnel_status {
	return guard("SaveState", func() error {
		state, err := from.SaveState()
		if err != nil {
			return err
		}
		p, n := bytesOf(state)
		return take(C.grapnel_bytes_assign(to, p, n))
	})
}

func loadState(guard guard, to stateful, state unsafe.Pointer,
	size C.size_t) *C.grapnel_status {
	return guard("LoadState", func() error {
		// A copy, as it is a surprise if a slice that was kept changes.
		return to.LoadState(bytes.Clone(unsafe.Slice((*byte)(state), size)))
	})
}
