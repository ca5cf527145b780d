package grapnel

/*
#include "native.h"
*/
import "C"

import (
	"runtime"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel/grapnelpb"
)

// An Average is a running average of tensors, without a Runner. It is for one
// goroutine at a time.
type Average struct{ c *C.grapnel_average }

// NewAverage makes an average of tensors, whose memory it shares. buffers may be
// nil.
func NewAverage(config *grapnelpb.AveragedModelConfig, parameters, buffers *Tensors) (*Average,
	error) {
	encoded, err := proto.Marshal(config)
	if err != nil {
		return nil, invalid("config: %v", err)
	}
	if err := parameters.there("parameters"); err != nil {
		return nil, err
	}
	var c *C.grapnel_tensors
	if buffers != nil {
		if err := buffers.there("buffers"); err != nil {
			return nil, err
		}
		c = buffers.c
	}
	p, n := bytesOf(encoded)
	out := C.grapnel_go_average_create(p, n, parameters.c, c)
	runtime.KeepAlive(parameters)
	runtime.KeepAlive(buffers)
	if out.status != nil {
		return nil, take(out.status)
	}
	a := &Average{(*C.grapnel_average)(out.object)}
	runtime.SetFinalizer(a, (*Average).destroy)
	return a, nil
}

// Update takes the present values in.
func (a *Average) Update() error {
	if a.c == nil {
		return gone("average")
	}
	defer runtime.KeepAlive(a)
	return take(C.grapnel_average_update(a.c))
}

// Steps returns how many updates there were.
func (a *Average) Steps() int64 {
	defer runtime.KeepAlive(a)
	return int64(C.grapnel_average_steps(a.c))
}

// SwapIn exchanges the tensors' values with the averages, until SwapOut.
func (a *Average) SwapIn() error {
	if a.c == nil {
		return gone("average")
	}
	defer runtime.KeepAlive(a)
	return take(C.grapnel_average_swap_in(a.c))
}

// SwapOut exchanges them back.
func (a *Average) SwapOut() error {
	if a.c == nil {
		return gone("average")
	}
	defer runtime.KeepAlive(a)
	return take(C.grapnel_average_swap_out(a.c))
}

// State returns the averages. Their memory is shared: read them before the next
// Update, SwapIn or SwapOut.
func (a *Average) State() (*Tensors, error) {
	if a.c == nil {
		return nil, gone("average")
	}
	defer runtime.KeepAlive(a)
	ts, err := NewTensors()
	if err != nil {
		return nil, err
	}
	if err := take(C.grapnel_average_state(a.c, ts.c)); err != nil {
		ts.Close()
		return nil, err
	}
	return ts, nil
}

// LoadState copies saved averages, and their number of updates, back.
func (a *Average) LoadState(state *Tensors, steps int64) error {
	if a.c == nil {
		return gone("average")
	}
	if err := state.there("state"); err != nil {
		return err
	}
	defer runtime.KeepAlive(a)
	defer runtime.KeepAlive(state)
	return take(C.grapnel_average_load_state(a.c, state.c, C.int64_t(steps)))
}

// Close swaps out, and lets go of the averages. It may be called twice.
func (a *Average) Close() error {
	if a.c == nil {
		return nil
	}
	runtime.SetFinalizer(a, nil)
	a.destroy()
	return nil
}

func (a *Average) destroy() {
	C.grapnel_average_destroy(a.c)
	a.c = nil
}
