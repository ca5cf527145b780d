package grapnel

/*
#include "callbacks.h"
*/
import "C"

import (
	"io"
	"unsafe"
)

// A Stream has samples that come one after another, in passes, for a training
// that is counted in iterations. Batches and resuming are the library's. With
// num_workers: 1 calls come on a goroutine of a thread of the library's; never
// two at once. Nobody interrupts a call, and Runner.Close waits for it: a stream
// that waits for others gives up by itself, with an error. A call must not close
// the Runner nor call it: ErrBusy.
//
// Optional are, both or none,
//
//	SaveState() ([]byte, error)
//	LoadState(state []byte) error
//
// for where it is in its pass. SaveState is called after every batch, so it
// should be cheap, and small. LoadState goes there, maybe in another process,
// after BeginPass of that pass. Without them, a run that is resumed reads the
// pass again from its beginning up to there.
type Stream interface {
	// BeginPass goes to the beginning of pass number pass, from 0, from anywhere,
	// also after an error. It is called before all else. A pass may have samples,
	// an order and a length of its own, but the same whenever it is gone through.
	BeginPass(pass int64) error

	// Next adds to sample the tensors of the next one, as Dataset.Get does. io.EOF,
	// not wrapped: the pass has no more, for as long as it is asked.
	Next(sample *Tensors) error
}

type streamSlot struct {
	stream Stream
	state  stateful // Or nil.
	errors *callbackErrors
	lent   Tensors
}

var streamSlots slots[streamSlot]

func setStream(options *C.grapnel_runner_options, stream Stream, errors *callbackErrors) error {
	if stream == nil {
		return nil
	}
	if err := checkState(stream); err != nil {
		return within("TrainStream", err)
	}
	slot := &streamSlot{stream: stream, errors: errors}
	var hasState C.int32_t
	if it, ok := stream.(stateful); ok {
		slot.state, hasState = it, 1
	}
	index := streamSlots.add(slot, errors.runner)
	status := C.grapnel_go_set_stream(options, hasState, C.uintptr_t(index))
	if status != nil {
		streamSlots.remove(index)
	}
	return within("TrainStream", take(status))
}

//export grapnelGoBeginPass
func grapnelGoBeginPass(slot C.uintptr_t, pass C.int64_t) *C.grapnel_status {
	s := streamSlots.get(uintptr(slot))
	return s.errors.guardData("Stream.BeginPass", func() error {
		return s.stream.BeginPass(int64(pass))
	})
}

//export grapnelGoNext
func grapnelGoNext(slot C.uintptr_t, sample *C.grapnel_tensors) *C.grapnel_status {
	s := streamSlots.get(uintptr(slot))
	lent := s.lent.borrow(sample, false)
	status := s.errors.guardData("Stream.Next", func() error {
		err := s.stream.Next(lent)
		switch {
		case err == io.EOF: // One that is wrapped says that something went wrong.
			C.grapnel_tensors_clear(sample)
			return nil
		case err == nil && lent.Len() == 0: // C would take it for the end.
			return invalid("Next added nothing: at the end of a pass it must return io.EOF")
		default:
			return err
		}
	})
	lent.expire()
	return status
}

//export grapnelGoSaveStream
func grapnelGoSaveStream(slot C.uintptr_t, state *C.grapnel_bytes) *C.grapnel_status {
	s := streamSlots.get(uintptr(slot))
	return saveState(s.errors.guardData, s.state, state)
}

//export grapnelGoLoadStream
func grapnelGoLoadStream(slot C.uintptr_t, state unsafe.Pointer, size C.size_t) *C.grapnel_status {
	s := streamSlots.get(uintptr(slot))
	return loadState(s.errors.guardData, s.state, state, size)
}

//export grapnelGoDestroyStream
func grapnelGoDestroyStream(slot C.uintptr_t) { streamSlots.remove(uintptr(slot)) }
