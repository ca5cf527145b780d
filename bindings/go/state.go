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

func saveState(errors *callbackErrors, from stateful, to *C.grapnel_bytes) *C.grapnel_status {
	return errors.guard("SaveState", func() error {
		state, err := from.SaveState()
		if err != nil {
			return err
		}
		p, n := bytesOf(state)
		return take(C.grapnel_bytes_assign(to, p, n))
	})
}

func loadState(errors *callbackErrors, to stateful, state unsafe.Pointer,
	size C.size_t) *C.grapnel_status {
	return errors.guard("LoadState", func() error {
		// A copy, as it is a surprise if a slice that was kept changes.
		return to.LoadState(bytes.Clone(unsafe.Slice((*byte)(state), size)))
	})
}
