package grapnel

/*
#include "callbacks.h"
*/
import "C"

// A Metric is computed over an evaluation, beside those of the config. Not over
// several ranks: ErrUnimplemented.
type Metric interface {
	// Reset forgets everything: an evaluation begins.
	Reset()
	// Process takes a batch and what the model says of it, "output" and losses. Both
	// are to be read only.
	Process(predictions, batch *Tensors) error
	// Compute adds the values to metrics.
	Compute(metrics *Scalars) error
}

type metricSlot struct {
	metric             Metric
	errors             *callbackErrors
	predictions, batch Tensors
	values             Scalars
}

var metricSlots slots[metricSlot]

func addMetric(options *C.grapnel_runner_options, name string, mode Mode, metric Metric,
	errors *callbackErrors) error {
	if metric == nil {
		return invalid("%s: is nil", name)
	}
	index := metricSlots.add(&metricSlot{metric: metric, errors: errors}, errors.runner)
	status := C.grapnel_go_add_metric(options, C.grapnel_mode(mode), C.uintptr_t(index))
	if status != nil {
		metricSlots.remove(index)
	}
	return within(name, take(status))
}

//export grapnelGoResetMetric
func grapnelGoResetMetric(slot C.uintptr_t) *C.grapnel_status {
	s := metricSlots.get(uintptr(slot))
	return s.errors.guard("Metric.Reset", func() error {
		s.metric.Reset()
		return nil
	})
}

//export grapnelGoProcessMetric
func grapnelGoProcessMetric(slot C.uintptr_t, predictions,
	batch *C.grapnel_tensors) *C.grapnel_status {
	s := metricSlots.get(uintptr(slot))
	s.predictions.borrow(predictions, true)
	s.batch.borrow(batch, true)
	status := s.errors.guard("Metric.Process", func() error {
		return s.metric.Process(&s.predictions, &s.batch)
	})
	s.predictions.expire()
	s.batch.expire()
	return status
}

//export grapnelGoComputeMetric
func grapnelGoComputeMetric(slot C.uintptr_t, metrics *C.grapnel_scalars) *C.grapnel_status {
	s := metricSlots.get(uintptr(slot))
	s.values.lend(metrics)
	status := s.errors.guard("Metric.Compute", func() error { return s.metric.Compute(&s.values) })
	s.values.expire()
	return status
}

//export grapnelGoDestroyMetric
func grapnelGoDestroyMetric(slot C.uintptr_t) { metricSlots.remove(uintptr(slot)) }
