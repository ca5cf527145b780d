package grapnel

/*
#include <grapnel/grapnel.h>
*/
import "C"

import (
	"context"
	"sync"
)

// How a context stops a training.

// A watch asks a run to stop, at once, when a context is done, until its end.
// nil is one of a context that never is.
type watch struct {
	ctx    context.Context
	runner *Runner
	forget func() bool
	asked  sync.Once
}

func (r *Runner) watch(ctx context.Context) *watch {
	if ctx.Done() == nil {
		return nil
	}
	w := &watch{ctx: ctx, runner: r}
	w.forget = context.AfterFunc(ctx, w.stop)
	return w
}

func (w *watch) stop() {
	w.asked.Do(func() {
		// It fails for text that isn't UTF-8 only, and for a runner that is closed.
		_ = w.runner.RequestStop(StopNow, messageOf(context.Cause(w.ctx)))
	})
}

// check is end, but goes on watching.
func (w *watch) check() error {
	if w == nil || w.ctx.Err() == nil {
		return nil
	}
	w.stop() // Waits, if it is being asked.
	return context.Cause(w.ctx)
}

// end returns why the run was asked to stop, or nil if it wasn't, and won't be.
func (w *watch) end() error {
	if w == nil || w.forget() {
		return nil
	}
	return w.check()
}

func canceled(cause error) *Error {
	return &Error{Code: codeOf(cause), Message: "stopped: " + messageOf(cause), cause: cause}
}

// startTraining returns why a call that trains has nothing to do: it would only
// stop a run that has not begun.
func (r *Runner) startTraining(ctx context.Context) error {
	if !r.begun {
		if err := context.Cause(ctx); err != nil {
			return canceled(err)
		}
	}
	r.begun = true
	return nil
}

// outcome is what a call that trained returns: err is what the library said,
// cause why the run was asked to stop, or nil. A run that is at its end
// nevertheless has come out well.
func (r *Runner) outcome(cause, err error) error {
	if cause != nil {
		r.stopped.Store(canceled(cause))
	}
	stopped := r.stopped.Load()
	if err != nil || stopped == nil || r.done() {
		return err
	}
	return stopped
}

// done reports whether the training is at its end.
func (r *Runner) done() bool {
	config, err := r.facts.config()
	if err != nil {
		return false
	}
	plan := config.GetTrainCfg()
	if plan.ByEpoch == nil || plan.GetByEpoch() {
		return int64(C.grapnel_runner_epoch(r.c)) >= plan.GetMaxEpochs()
	}
	return int64(C.grapnel_runner_iter(r.c)) >= plan.GetMaxIters()
}
