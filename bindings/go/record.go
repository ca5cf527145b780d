package grapnel

/*
#include "callbacks.h"
*/
import "C"

// A RecordFunc gets the numbers of one moment, as they are written for plots: of
// training every few iterations, as the config's default_hooks.logger says, and
// of each evaluation. step is the x of a plot, of no meaning in a test. The
// record is valid until the function returns.
//
// It is called on a goroutine of the runner's own, one record after the other;
// all have come when Train, Val or Test returns, but not each Step. An error is
// logged, and ends the calls, not the run.
type RecordFunc func(mode Mode, step int64, record *Scalars) error

type recordSlot struct {
	f      RecordFunc
	errors *callbackErrors // nil: what it returns is logged, and comes back nowhere.
	record Scalars
}

var recordSlots slots[recordSlot]

//export grapnelGoRecord
func grapnelGoRecord(slot C.uintptr_t, mode C.grapnel_mode, step C.int64_t,
	record *C.grapnel_scalars) *C.grapnel_status {
	s := recordSlots.get(uintptr(slot))
	status := s.errors.guard("Records", func() error {
		return s.f(Mode(mode), int64(step), s.record.fill(record))
	})
	s.record.expire()
	return status
}
