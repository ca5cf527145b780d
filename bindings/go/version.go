package grapnel

/*
#cgo pkg-config: grapnel
#include "native.h"
*/
import "C"

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"unsafe"
)

// Version returns the version of the library that is running: "0.1".
func Version() string {
	v := C.grapnel_version()
	return fmt.Sprintf("%d.%d", v>>16, v&0xffff)
}

// BuildInfo returns a line for a bug report: versions of Grapnel, LibTorch and
// protobuf.
func BuildInfo() string { return C.GoString(C.grapnel_build_info()) }

// LiveObjects returns how many objects of the library are alive, in the whole
// process. Tensors that nobody has closed count until Go has collected them.
func LiveObjects() int { return int(C.grapnel_live_objects()) }

// RegisteredConfigs returns the full names of the config messages of all that
// the library has: models, layers, losses, metrics, datasets, transforms,
// optimizers, schedulers, averages, log backends and hooks. Sorted.
func RegisteredConfigs() ([]string, error) {
	return linesOf(C.grapnel_go_registered_configs(), take)
}

// compatible returns an error if the library is older than the header that this
// package was compiled with, or of another major version.
var compatible = sync.OnceValue(func() error {
	v := C.grapnel_version()
	if v>>16 == C.GRAPNEL_VERSION_MAJOR && v&0xffff >= C.GRAPNEL_VERSION_MINOR {
		return nil
	}
	return &Error{
		Code: ErrFailedPrecondition,
		Message: fmt.Sprintf("libgrapnel: is version %s, must be %d.%d or newer", Version(),
			C.GRAPNEL_VERSION_MAJOR, C.GRAPNEL_VERSION_MINOR),
	}
})

// textOf takes a text that C gave.
func textOf(text C.grapnel_go_text, take func(*C.grapnel_status) error) (string, error) {
	b, err := dataOf(text, take)
	return string(b), err
}

// dataOf is textOf for bytes.
func dataOf(text C.grapnel_go_text, take func(*C.grapnel_status) error) ([]byte, error) {
	if text.status != nil {
		return nil, take(text.status)
	}
	b := bytes.Clone(unsafe.Slice((*byte)(ptr(text.bytes.data)), text.bytes.size))
	C.grapnel_bytes_clear(&text.bytes)
	return b, nil
}

// linesOf takes a list that C gave, a line each.
func linesOf(text C.grapnel_go_text, take func(*C.grapnel_status) error) ([]string, error) {
	s, err := textOf(text, take)
	if err != nil || s == "" {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n"), nil
}
