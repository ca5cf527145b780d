package grapnel

/*
#include <stdlib.h>
#include "native.h"
*/
import "C"

import (
	"math"
	"runtime"
	"slices"
	"unsafe"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel/grapnelpb"
)

// A Scheduler moves numbers, learning rates for example, without a Runner. It is
// for one goroutine at a time.
type Scheduler struct {
	c      *C.grapnel_scheduler
	values []float64 // In C's memory.
}

// NewScheduler makes a scheduler. values has a number for each parameter group:
// what they start from; it is copied, and none is moved before Apply. maxEpochs
// and maxIters say how long the training is, -1 if it isn't known; an epoch's
// length follows from both.
func NewScheduler(config *grapnelpb.ParamSchedulerConfig, values []float64, maxEpochs,
	maxIters int64) (*Scheduler, error) {
	encoded, err := proto.Marshal(config)
	if err != nil {
		return nil, invalid("config: %v", err)
	}
	memory := (*float64)(C.calloc(C.size_t(len(values)+1), C.size_t(unsafe.Sizeof(float64(0)))))
	lent := unsafe.Slice(memory, len(values))
	copy(lent, values)
	p, n := bytesOf(encoded)
	out := C.grapnel_go_scheduler_create(p, n, (*C.double)(memory), C.size_t(len(values)),
		C.int64_t(maxEpochs), C.int64_t(maxIters))
	if out.status != nil {
		C.free(unsafe.Pointer(memory))
		return nil, take(out.status)
	}
	s := &Scheduler{c: (*C.grapnel_scheduler)(out.object), values: lent}
	runtime.SetFinalizer(s, (*Scheduler).destroy)
	return s, nil
}

// Values returns a copy of the numbers as they are now.
func (s *Scheduler) Values() []float64 {
	defer runtime.KeepAlive(s)
	return slices.Clone(s.values)
}

// Value returns the number of a parameter group; NaN if there is none, as after
// Close.
func (s *Scheduler) Value(group int) float64 {
	defer runtime.KeepAlive(s)
	if group < 0 || group >= len(s.values) {
		return math.NaN()
	}
	return s.values[group]
}

// SetValues sets the numbers: what others have made of them, or, before
// LoadState, what they were when the state was saved.
func (s *Scheduler) SetValues(values []float64) error {
	if s.c == nil {
		return gone("scheduler")
	}
	if len(values) != len(s.values) {
		return invalid("values: there are %d, not %d", len(s.values), len(values))
	}
	copy(s.values, values)
	runtime.KeepAlive(s)
	return nil
}

// Apply sets the numbers of step 0.
func (s *Scheduler) Apply() error {
	if s.c == nil {
		return gone("scheduler")
	}
	defer runtime.KeepAlive(s)
	return take(C.grapnel_scheduler_apply(s.c))
}

// Step says that an epoch, or an iteration, as the config has it, is over.
func (s *Scheduler) Step() error {
	if s.c == nil {
		return gone("scheduler")
	}
	defer runtime.KeepAlive(s)
	return take(C.grapnel_scheduler_step(s.c))
}

// StepMetric tells one that follows a metric, reduce_on_plateau, its value, of a
// validation, after the Step of the epoch.
func (s *Scheduler) StepMetric(value float64) error {
	if s.c == nil {
		return gone("scheduler")
	}
	defer runtime.KeepAlive(s)
	return take(C.grapnel_scheduler_step_metric(s.c, C.double(value)))
}

// SaveState returns where the scheduler is, without the numbers themselves.
func (s *Scheduler) SaveState() ([]byte, error) {
	if s.c == nil {
		return nil, gone("scheduler")
	}
	defer runtime.KeepAlive(s)
	return dataOf(C.grapnel_go_scheduler_save_state(s.c), take)
}

// LoadState goes to where another one was; SetValues comes before it.
func (s *Scheduler) LoadState(state []byte) error {
	if s.c == nil {
		return gone("scheduler")
	}
	defer runtime.KeepAlive(s)
	p, n := bytesOf(state)
	return take(C.grapnel_scheduler_load_state(s.c, p, n))
}

// Close lets go of the scheduler. It may be called twice.
func (s *Scheduler) Close() error {
	if s.c == nil {
		return nil
	}
	runtime.SetFinalizer(s, nil)
	s.destroy()
	return nil
}

func (s *Scheduler) destroy() {
	C.grapnel_scheduler_destroy(s.c)
	C.free(unsafe.Pointer(unsafe.SliceData(s.values)))
	s.c, s.values = nil, nil
}
