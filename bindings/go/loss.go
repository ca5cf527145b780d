package grapnel

/*
#include "callbacks.h"
#include "native.h"
*/
import "C"

// A Loss is one for a model from a config that has none there.
type Loss interface {
	// Compute returns the mean over the batch, and writes d loss / d output to grad
	// ([Data] or [SetValues]): zeros at first, of output's shape and type. grad is
	// nil where nobody asks for it, in evaluations. output must be in host memory.
	Compute(output *Tensor, batch *Tensors, grad *Tensor) (float64, error)
}

// LossFunc makes a loss of a function.
type LossFunc func(output *Tensor, batch *Tensors, grad *Tensor) (float64, error)

// Compute calls f.
func (f LossFunc) Compute(output *Tensor, batch *Tensors, grad *Tensor) (float64, error) {
	return f(output, batch, grad)
}

type lossSlot struct {
	loss         Loss
	errors       *callbackErrors
	output, grad Tensor
	batch        Tensors
}

var lossSlots slots[lossSlot]

func setLoss(options *C.grapnel_runner_options, loss Loss, errors *callbackErrors) error {
	if loss == nil {
		return nil
	}
	index := lossSlots.add(&lossSlot{loss: loss, errors: errors}, errors.runner)
	status := C.grapnel_go_set_loss(options, C.uintptr_t(index))
	if status != nil {
		lossSlots.remove(index)
	}
	return within("Loss", take(status))
}

//export grapnelGoComputeLoss
func grapnelGoComputeLoss(slot C.uintptr_t, output *C.grapnel_tensor, batch *C.grapnel_tensors,
	loss *C.double, grad **C.grapnel_tensor) *C.grapnel_status {
	s := lossSlots.get(uintptr(slot))
	s.output.c, s.output.readOnly = output, true
	s.batch.borrow(batch, true)
	lent := (*Tensor)(nil)
	if grad != nil {
		out := C.grapnel_go_tensor_zeros_like(output)
		if out.status != nil {
			return out.status
		}
		s.grad.c = (*C.grapnel_tensor)(out.object)
		lent = &s.grad
	}
	status := s.errors.guard("Loss.Compute", func() error {
		value, err := s.loss.Compute(&s.output, &s.batch, lent)
		*loss = C.double(value)
		return err
	})
	if lent != nil {
		if status == nil {
			*grad = lent.c // Taken.
		} else {
			C.grapnel_tensor_destroy(lent.c)
		}
		lent.c = nil
	}
	s.output.c = nil
	s.batch.expire()
	return status
}

//export grapnelGoDestroyLoss
func grapnelGoDestroyLoss(slot C.uintptr_t) { lossSlots.remove(uintptr(slot)) }
