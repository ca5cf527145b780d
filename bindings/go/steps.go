package grapnel

/*
#include "native.h"
*/
import "C"

import (
	"context"
	"iter"
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
// there. At the loop's end the threads end that LibTorch has made for it. With
// iter.Pull each step is as by [Runner.Step].
func (r *Runner) Steps(ctx context.Context) iter.Seq2[Step, error] {
	return func(yield func(Step, error) bool) {
		do := r.step
		if inCoroutine() {
			do = r.stepAlone
		} else {
			holdThread()
			defer leaveThread()
		}
		watch, err := r.startSteps(ctx)
		if err != nil {
			yield(Step{}, err)
			return
		}
		defer r.endSteps(watch)
		for {
			step, err := do(watch)
			if !yield(step, err) || err != nil || !step.More {
				return
			}
		}
	}
}

// Step does one iteration of [Runner.Steps], on an OS thread that the Runner has
// for it until it is closed. In each call it hands over to that thread and back,
// some 50 microseconds on two busy cores, and watches the context: a loop is
// better off with Steps. A context that is done during the iteration is an error
// of the next one.
func (r *Runner) Step(ctx context.Context) (Step, error) {
	watch, err := r.startSteps(ctx)
	if err != nil {
		return Step{}, err
	}
	defer r.endSteps(watch)
	return r.stepAlone(watch)
}

// A stepper makes single steps, on an OS thread of its own: goroutines have no
// thread where what LibTorch keeps for it is found by the next step, and goes
// with the Runner.
type stepper struct {
	work chan *stepper // nil before the first step.
	done chan struct{}

	// Of the step that is going on. The goroutine must not keep the runner between
	// two, or it would never be collected.
	runner *Runner
	watch  *watch
	step   Step
	err    error
}

func (s *stepper) start() {
	work := make(chan *stepper)
	s.work, s.done = work, make(chan struct{})
	go runOnOwnThread(func() {
		for s := range work {
			s.step, s.err = s.runner.stepHere(s.watch)
			s.done <- struct{}{}
		}
	})
}

func (s *stepper) end() {
	if s.work != nil {
		close(s.work)
	}
	s.work = nil
}

// stepAlone makes a step there.
func (r *Runner) stepAlone(watch *watch) (Step, error) {
	if err := r.begin(); err != nil {
		return Step{}, err
	}
	defer r.end()
	s := r.single
	if s.work == nil {
		s.start()
	}
	s.runner, s.watch = r, watch
	s.work <- s
	<-s.done
	s.runner, s.watch = nil, nil
	return s.step, s.err
}

func (r *Runner) startSteps(ctx context.Context) (watch *watch, err error) {
	err = r.do(func() error {
		if err := r.startTraining(ctx); err != nil {
			return err
		}
		watch = r.watch(ctx)
		return nil
	})
	return watch, err
}

func (r *Runner) endSteps(watch *watch) {
	if cause := watch.end(); cause != nil {
		r.stopped.Store(canceled(cause))
	}
}

// step makes a step on this goroutine's thread.
func (r *Runner) step(watch *watch) (Step, error) {
	if err := r.begin(); err != nil {
		return Step{}, err
	}
	defer r.end()
	return r.stepHere(watch)
}

func (r *Runner) stepHere(watch *watch) (Step, error) {
	r.errors.forget()
	r.home.enter() // In each step, as other calls between two are elsewhere.
	defer r.home.leave()
	watch.check() // Then it is this step that stops, and saves.
	out := C.grapnel_go_runner_step(r.c, r.progress)
	if out.status != nil {
		return Step{}, r.outcome(watch.check(), r.errors.take(out.status))
	}
	step := Step{Epoch: int64(out.epoch), Iter: int64(out.iter), More: out.more != 0}
	if !step.More {
		return step, r.outcome(watch.check(), nil)
	}
	return step, nil
}
