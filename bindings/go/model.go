package grapnel

/*
#include "callbacks.h"
*/
import "C"

import (
	"runtime"
	"unsafe"
)

// A Model is one whose gradients another engine computes, in place of a config's.
// Optimizers, schedules, averages and checkpoints are the library's.
//
// Optional are
//
//	Buffers() *grapnel.Tensors    // Beside the parameters; of any type. Called once.
//	ValStep(batch, predictions *grapnel.Tensors, losses *grapnel.Scalars) error
//	TensorsWritten() error        // Parameters or buffers have been written since the last step.
//	SetTraining(training bool)    // For training, or for evaluation.
//	ExportModel(path string) error
//
// ValStep adds "output", (N, ...), to predictions, and to losses those of the
// batch, if it has targets; without it the model can't be evaluated.
// TensorsWritten is for engines that have copies of their own: it comes before a
// TrainStep or ValStep.
type Model interface {
	// Parameters returns the model's tensors by name, which the library trains in
	// place. Their types are floating. It is called once.
	Parameters() *Tensors

	// TrainStep adds to gradients those of the mean loss of the batch, by the names
	// of the parameters, and to losses what is to be logged: the total first, as
	// "loss", if there are several.
	TrainStep(batch, gradients *Tensors, losses *Scalars) error
}

type valStepper interface {
	ValStep(batch, predictions *Tensors, losses *Scalars) error
}
type buffered interface{ Buffers() *Tensors }
type tensorsWritten interface{ TensorsWritten() error }
type trainingSetter interface{ SetTraining(training bool) }
type exporter interface{ ExportModel(path string) error }

type modelSlot struct {
	model    Model
	val      valStepper // These are nil if it isn't one.
	written  tensorsWritten
	training trainingSetter
	export   exporter
	errors   *callbackErrors

	batch, out Tensors
	losses     Scalars
	misfortune error // What SetTraining panicked with: the next step's error.
}

var modelSlots slots[modelSlot]

func setModel(options *C.grapnel_runner_options, model Model, errors *callbackErrors) error {
	if model == nil {
		return nil
	}
	if err := checkModel(model); err != nil {
		return within("Model", err)
	}
	parameters := model.Parameters()
	if err := parameters.there("Parameters"); err != nil {
		return within("Model", err)
	}
	var buffers *Tensors
	var c *C.grapnel_tensors
	if it, ok := model.(buffered); ok {
		if buffers = it.Buffers(); buffers != nil {
			if err := buffers.there("Buffers"); err != nil {
				return within("Model", err)
			}
			c = buffers.c
		}
	}
	slot := &modelSlot{model: model, errors: errors}
	var hasVal, hasWritten, hasTraining, hasExport bool
	slot.val, hasVal = model.(valStepper)
	slot.written, hasWritten = model.(tensorsWritten)
	slot.training, hasTraining = model.(trainingSetter)
	slot.export, hasExport = model.(exporter)
	index := modelSlots.add(slot, errors.runner)
	status := C.grapnel_go_set_model(options, parameters.c, c, flag(hasVal), flag(hasWritten),
		flag(hasTraining), flag(hasExport), C.uintptr_t(index))
	runtime.KeepAlive(parameters) // Made for this call, maybe.
	runtime.KeepAlive(buffers)
	if status != nil {
		modelSlots.remove(index)
	}
	return within("Model", take(status))
}

func flag(set bool) C.int32_t {
	if set {
		return 1
	}
	return 0
}

//export grapnelGoTrainStep
func grapnelGoTrainStep(slot C.uintptr_t, batch, gradients *C.grapnel_tensors,
	losses *C.grapnel_scalars) *C.grapnel_status {
	s := modelSlots.get(uintptr(slot))
	return s.step("Model.TrainStep", batch, gradients, losses, s.model.TrainStep)
}

//export grapnelGoValStep
func grapnelGoValStep(slot C.uintptr_t, batch, predictions *C.grapnel_tensors,
	losses *C.grapnel_scalars) *C.grapnel_status {
	s := modelSlots.get(uintptr(slot))
	return s.step("Model.ValStep", batch, predictions, losses, s.val.ValStep)
}

func (s *modelSlot) step(what string, batch, out *C.grapnel_tensors, losses *C.grapnel_scalars,
	step func(batch, out *Tensors, losses *Scalars) error) *C.grapnel_status {
	if err := s.misfortune; err != nil {
		s.misfortune = nil
		return s.errors.status(err)
	}
	s.batch.borrow(batch, true)
	s.out.borrow(out, false)
	s.losses.lend(losses)
	status := s.errors.guard(what, func() error { return step(&s.batch, &s.out, &s.losses) })
	s.batch.expire()
	s.out.expire()
	s.losses.expire()
	return status
}

//export grapnelGoTensorsWritten
func grapnelGoTensorsWritten(slot C.uintptr_t) *C.grapnel_status {
	s := modelSlots.get(uintptr(slot))
	return s.errors.guard("Model.TensorsWritten", s.written.TensorsWritten)
}

//export grapnelGoSetTraining
func grapnelGoSetTraining(slot C.uintptr_t, training C.int32_t) {
	s := modelSlots.get(uintptr(slot))
	returned := false
	defer func() {
		if !returned {
			s.misfortune = panicked("Model.SetTraining", recover())
		}
	}()
	s.training.SetTraining(training != 0)
	returned = true
}

//export grapnelGoExportModel
func grapnelGoExportModel(slot C.uintptr_t, path *C.char, size C.size_t) *C.grapnel_status {
	s := modelSlots.get(uintptr(slot))
	return s.errors.guard("Model.ExportModel", func() error {
		return s.export.ExportModel(string(unsafe.Slice((*byte)(ptr(path)), size)))
	})
}

//export grapnelGoDestroyModel
func grapnelGoDestroyModel(slot C.uintptr_t) { modelSlots.remove(uintptr(slot)) }
