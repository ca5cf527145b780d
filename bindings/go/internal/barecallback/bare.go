// Package barecallback is what a callback from C into Go costs that does nothing
// at all: what callbacks of this module are measured against.
package barecallback

/*
#cgo pkg-config: grapnel
#include "bare.h"
*/
import "C"

import (
	"unsafe"

	"grapnel.dev/grapnel"
)

//export grapnelGoBare
func grapnelGoBare(C.uintptr_t, C.grapnel_stage, *C.grapnel_run) *C.grapnel_status { return nil }

// Run makes n callbacks in one call of C.
func Run(n int) { C.grapnel_go_bare_callbacks(C.int64_t(n)) }

// Hook returns a hook of C's that makes the callback at AfterTrainIter.
func Hook(name string) grapnel.Hook {
	return grapnel.NativeHook(name, unsafe.Pointer(C.grapnel_go_bare_hook()), nil)
}
