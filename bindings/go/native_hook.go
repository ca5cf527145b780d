package grapnel

/*
#include <grapnel/grapnel.h>
*/
import "C"

import "unsafe"

// NativeHook makes a hook of C code in this program. callbacks is a
// grapnel_hook_callbacks, in C's memory, that stays until New has returned;
// userData is what it is called with, and is given back through its destroy
// once the runner has taken it. Its priority is there too, and not
// [WithPriority]'s.
func NativeHook(name string, callbacks, userData unsafe.Pointer) Hook {
	return &nativeHook{name, callbacks, userData}
}

type nativeHook struct {
	name                string
	callbacks, userData unsafe.Pointer
}

func (h *nativeHook) Name() string { return h.name }

func (h *nativeHook) add(options *C.grapnel_runner_options) error {
	p, n := chars(h.name)
	return take(C.grapnel_runner_options_add_hook(options, p, n,
		(*C.grapnel_hook_callbacks)(h.callbacks), h.userData))
}
