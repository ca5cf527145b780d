package grapnel

/*
#include "native.h"
*/
import "C"

import (
	"context"
	"iter"
	"runtime"
)

// A Step is where a run is after an iteration of training.
type Step struct {
	Epoch int64 // Completed epochs.
	Iter  int64 // Completed iterations.
	More  bool  // There is more to do.
}

// Steps goes through the iterations of a training, each with all that is due in
// it and after it: hooks, validations, saves.
//
//	for step, err := range runner.Steps(ctx) {
//		if err != nil {
//			return err
//		}
//		...
//	}
//
// Train is steps to the end, and any mixture of the two is the same run, to the
// bit. Between two steps all methods of the Runner may be called. An error is
// the last that comes. A loop that is left is gone on with by the next.
//
// The goroutine is locked to its OS thread in the loop, and the iterations run
// there: LibTorch keeps threads of its own for each thread that it has computed
// on, as long as that one lives.
func (r *Runner) Steps(ctx context.Context) iter.Seq2[Step, error] {
	return func(yield func(Step, error) bool) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		watch, err := r.startSteps(ctx)
		if err != nil {
			yield(Step{}, err)
			return
		}
		defer r.endSteps(watch)
		for {
			step, err := r.step(watch)
			if !yield(step, err) || err != nil || !step.More {
				return
			}
		}
	}
}

// Step does one iteration of [Runner.Steps]. It locks the goroutine to its OS
// thread and watches the context in each call: a loop is better off with Steps.
// A context that is done during the iteration is an error of the next one.
func (r *Runner) Step(ctx context.Context) (Step, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	watch, err := r.startSteps(ctx)
	if err != nil {
		return Step{}, err
	}
	defer r.endSteps(watch)
	return r.step(watch)
}

func (r *Runner) startSteps(ctx context.Context) (watch *watch, err error) {
	err = r.do(func() error {
		if err := r.startTraining(ctx); err != nil {
			return err
		}
		watch = r.watch(ctx)
		r.home.here()
		return nil
	})
	return watch, err
}

func (r *Runner) endSteps(watch *watch) {
	if cause := watch.end(); cause != nil {
		r.stopped.Store(canceled(cause))
	}
}

func (r *Runner) step(watch *watch) (Step, error) {
	if err := r.begin(); err != nil {
		return Step{}, err
	}
	defer r.end()
	watch.check() // Then it is this step that stops, and saves.
	out := C.grapnel_go_runner_step(r.c)
	if out.status != nil {
		return Step{}, r.outcome(watch.check(), r.errors.take(out.status))
	}
	step := Step{Epoch: int64(out.epoch), Iter: int64(out.iter), More: out.more != 0}
	if !step.More {
		return step, r.outcome(watch.check(), nil)
	}
	return step, nil
}
