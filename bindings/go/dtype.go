package grapnel

/*
#include <grapnel/grapnel.h>
*/
import "C"

import (
	"strconv"
	"unsafe"
)

// A DType is the type of a tensor's elements. 0 is one that has no value here,
// as a complex one. More may come.
type DType int32

const (
	DTypeBool     DType = C.GRAPNEL_BOOL
	DTypeUint8    DType = C.GRAPNEL_UINT8
	DTypeInt32    DType = C.GRAPNEL_INT32
	DTypeInt64    DType = C.GRAPNEL_INT64
	DTypeFloat16  DType = C.GRAPNEL_FLOAT16
	DTypeBFloat16 DType = C.GRAPNEL_BFLOAT16
	DTypeFloat32  DType = C.GRAPNEL_FLOAT32
	DTypeFloat64  DType = C.GRAPNEL_FLOAT64
	DTypeInt8     DType = C.GRAPNEL_INT8
	DTypeInt16    DType = C.GRAPNEL_INT16
)

var dtypes = [...]struct {
	name string
	size int
}{
	DTypeBool:     {"bool", 1},
	DTypeUint8:    {"uint8", 1},
	DTypeInt32:    {"int32", 4},
	DTypeInt64:    {"int64", 8},
	DTypeFloat16:  {"float16", 2},
	DTypeBFloat16: {"bfloat16", 2},
	DTypeFloat32:  {"float32", 4},
	DTypeFloat64:  {"float64", 8},
	DTypeInt8:     {"int8", 1},
	DTypeInt16:    {"int16", 2},
}

// String returns the name: "float32".
func (d DType) String() string {
	if d > 0 && int(d) < len(dtypes) {
		return dtypes[d].name
	}
	return "dtype " + strconv.Itoa(int(d))
}

// Size returns the bytes of an element; 0 for a type that isn't known.
func (d DType) Size() int {
	if d > 0 && int(d) < len(dtypes) {
		return dtypes[d].size
	}
	return 0
}

// Element is each type that elements of tensors have in Go.
type Element interface {
	bool | uint8 | int8 | int16 | int32 | int64 | float32 | float64 | Float16 | BFloat16
}

// DTypeOf returns the type of a tensor of T.
func DTypeOf[T Element]() DType {
	var zero T
	switch any(zero).(type) {
	case bool:
		return DTypeBool
	case uint8:
		return DTypeUint8
	case int8:
		return DTypeInt8
	case int16:
		return DTypeInt16
	case int32:
		return DTypeInt32
	case int64:
		return DTypeInt64
	case float32:
		return DTypeFloat32
	case float64:
		return DTypeFloat64
	case Float16:
		return DTypeFloat16
	default:
		return DTypeBFloat16
	}
}

func ptr[T any](p *T) unsafe.Pointer { return unsafe.Pointer(p) }

// elementsOf lends a slice for the length of a call.
func elementsOf[T Element](data []T) (unsafe.Pointer, C.size_t) {
	var zero T
	return unsafe.Pointer(unsafe.SliceData(data)), C.size_t(uintptr(len(data)) * unsafe.Sizeof(zero))
}
