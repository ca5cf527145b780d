package grapnel

/*
#include "callbacks.h"
#include "native.h"
*/
import "C"

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A Runner is one run: a model, its optimizer, hooks and data.
//
// Its methods are for one goroutine at a time: a call while another one is going
// on, or from a callback, returns ErrBusy and does nothing. Any goroutine may at
// any time call RequestStop, Predictor and what a [Predictor] has, and read Epoch,
// Iter, Config, WorkDir, TensorNames and StageTable. Different Runners are
// independent of each other.
//
// Train, TrainUntil, Val, Test, Export and Save compute on an OS thread of their
// own, which ends with the call. Callbacks of hooks, models, losses and metrics
// come on it.
//
// Close it. Go collects one that nobody can reach, but its hooks, data, model and
// logs are reachable as long as it lives: one that they refer to is never
// collected.
//
// A context that is cancelled stops at once: after the iteration that is going
// on, and with a save, so that a new Runner whose config says resume goes on
// there. The call then returns an error that errors.Is finds context.Cause in.
// The Runner itself is stopped for good: later calls of Train, TrainUntil, Step
// and Steps do nothing more and return that error.
type Runner struct {
	busy   atomic.Bool // A call is going on.
	errors *callbackErrors
	loan   loan
	home   *home
	facts  facts

	mu       sync.RWMutex // Held to read while these are used by calls that may come any time.
	c        *C.grapnel_runner
	progress *C.grapnel_go_progress

	single  *stepper
	begun   bool                  // A training was begun. For who has made it busy.
	stopped atomic.Pointer[Error] // That a context stopped the training.
}

// begin is before, and end behind, every call that isn't for any time.
func (r *Runner) begin() error {
	if r.calledBack() || !r.busy.CompareAndSwap(false, true) {
		return errBusy
	}
	if r.c == nil {
		r.busy.Store(false)
		return gone("runner")
	}
	return nil
}

func (r *Runner) end() { r.busy.Store(false) }

// calledBack reports whether this is a callback of data, records or the log. It
// may be one that the call would wait for.
func (r *Runner) calledBack() bool {
	return C.grapnel_go_inside(C.uint32_t(r.errors.runner)) != 0
}

// anyTime makes a call that may be made any time, of a function that is quick.
func (r *Runner) anyTime(call func() error) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.c == nil {
		return gone("runner")
	}
	return call()
}

// onOwnThread calls f, which may run callbacks, there.
func (r *Runner) onOwnThread(f func()) {
	r.errors.forget()
	onOwnThread(func() {
		r.home.enter()
		defer r.home.leave()
		f()
		C.grapnel_go_progress_set(r.progress, r.c)
	})
}

// do makes such a call, of a function that is quick.
func (r *Runner) do(call func() error) error {
	if err := r.begin(); err != nil {
		return err
	}
	defer r.end()
	return call()
}

// Train trains until it is done, stopped or failed; from where the config's
// resume or load_from say, or where an earlier call has ended. nil if a hook or
// RequestStop stopped it: see StopReason.
func (r *Runner) Train(ctx context.Context) error {
	return r.train(ctx, func() error { return r.errors.take(C.grapnel_runner_train(r.c)) })
}

// TrainUntil trains until a moment is past, finishes the iteration, and saves.
// more is true if there is more to do: the next call goes on.
func (r *Runner) TrainUntil(ctx context.Context, deadline time.Time) (more bool, err error) {
	err = r.train(ctx, func() error {
		// Not by UnixNano, which has no moment after 2262.
		seconds := float64(deadline.Unix()) + float64(deadline.Nanosecond())/1e9
		out := C.grapnel_go_runner_train_until(r.c, C.double(seconds))
		more = out.more != 0
		return r.errors.take(out.status)
	})
	return more && err == nil, err
}

func (r *Runner) train(ctx context.Context, call func() error) error {
	if err := r.begin(); err != nil {
		return err
	}
	defer r.end()
	if err := r.startTraining(ctx); err != nil {
		return err
	}
	watch := r.watch(ctx)
	var err error
	r.onOwnThread(func() { err = call() })
	return r.outcome(watch.end(), err)
}

// Val makes a validation, and returns its metrics; those that are texts are left
// out. Between two steps it is part of the training, which goes on as if it had
// not been.
//
// A context that is done ends it before the next batch, with an error that
// errors.Is finds context.Cause in. Unlike a training's, the Runner may go on.
func (r *Runner) Val(ctx context.Context) (*Scalars, error) {
	return r.evaluate(ctx, func(to *C.grapnel_scalars) *C.grapnel_status {
		return C.grapnel_runner_val(r.c, to)
	})
}

// Test is Val for the config's test_dataloader and test_evaluator.
func (r *Runner) Test(ctx context.Context) (*Scalars, error) {
	return r.evaluate(ctx, func(to *C.grapnel_scalars) *C.grapnel_status {
		return C.grapnel_runner_test(r.c, to)
	})
}

func (r *Runner) evaluate(ctx context.Context,
	call func(*C.grapnel_scalars) *C.grapnel_status) (*Scalars, error) {
	if err := r.begin(); err != nil {
		return nil, err
	}
	defer r.end()
	if err := context.Cause(ctx); err != nil {
		return nil, canceled(err)
	}
	var c *C.grapnel_scalars
	if err := take(C.grapnel_scalars_create(&c)); err != nil {
		return nil, err
	}
	defer C.grapnel_scalars_destroy(c)
	defer r.cancelWith(ctx)()
	var err error
	r.onOwnThread(func() { err = r.errors.take(call(c)) })
	if cause := context.Cause(ctx); err != nil && cause != nil && errors.Is(err, ErrCanceled) {
		return nil, canceled(cause)
	}
	if err != nil {
		return nil, err
	}
	return new(Scalars).fill(c), nil
}

// cancelWith ends an evaluation with a context, until the function is called that
// it returns.
func (r *Runner) cancelWith(ctx context.Context) (forget func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	asked := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		C.grapnel_go_progress_cancel(r.progress, 1)
		close(asked)
	})
	return func() {
		if !stop() {
			<-asked
			C.grapnel_go_progress_cancel(r.progress, 0)
		}
	}
}

// Export writes the model to a file in its own format; ErrUnimplemented if it
// has none.
func (r *Runner) Export(path string) error {
	return r.doOnOwnThread(func() *C.grapnel_status {
		p, n := chars(path)
		return C.grapnel_runner_export(r.c, p, n)
	})
}

// Save saves a checkpoint of that name, "iter_100", at once; between two steps.
func (r *Runner) Save(name string) error {
	return r.doOnOwnThread(func() *C.grapnel_status {
		p, n := chars(name)
		return C.grapnel_runner_save(r.c, p, n)
	})
}

func (r *Runner) doOnOwnThread(call func() *C.grapnel_status) error {
	return r.do(func() (err error) {
		r.onOwnThread(func() { err = r.errors.take(call()) })
		return err
	})
}

// RequestStop ends training, which then has come out well. The first reason is
// kept, but that of StopNow takes the place of one of StopAfterEpoch. It may be
// called any time; where nothing is going on, the next Train does no more.
func (r *Runner) RequestStop(at StopAt, reason string) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.c == nil {
		return gone("runner")
	}
	p, n := chars(reason)
	return take(C.grapnel_runner_request_stop(r.c, C.grapnel_stop(at), p, n))
}

// StopReason returns the reason of the stop that was asked for, or "".
func (r *Runner) StopReason() (reason string, err error) {
	err = r.do(func() error {
		reason, err = textOf(C.grapnel_go_runner_stop_reason(r.c), take)
		return err
	})
	return reason, err
}

// Epoch returns the completed epochs.
func (r *Runner) Epoch() (epoch int64, err error) {
	err = r.anyTime(func() error {
		epoch = int64(C.grapnel_go_progress_epoch(r.progress))
		return nil
	})
	return epoch, err
}

// Iter returns the completed iterations. While one is going on, it counts as soon
// as the hooks of AfterTrainIter have acted.
func (r *Runner) Iter() (iter int64, err error) {
	err = r.anyTime(func() error {
		iter = int64(C.grapnel_go_progress_iter(r.progress))
		return nil
	})
	return iter, err
}

// Scalar returns the newest value of a history: see Run.Scalar.
func (r *Runner) Scalar(name string) (value float64, err error) {
	err = r.do(func() error {
		p, n := chars(name)
		out := C.grapnel_go_runner_scalar(r.c, p, n)
		value = float64(out.value)
		return take(out.status)
	})
	return value, err
}

// ScalarNames returns the names of all histories.
func (r *Runner) ScalarNames() (names []string, err error) {
	err = r.do(func() error {
		names, err = linesOf(C.grapnel_go_runner_scalar_names(r.c), take)
		return err
	})
	return names, err
}

// Info returns a fact of the run, "experiment_name", as text: a bool is "true" or
// "false", a list "1,2,3". ErrNotFound if there is none of that name.
func (r *Runner) Info(name string) (value string, err error) {
	err = r.do(func() error {
		p, n := chars(name)
		value, err = textOf(C.grapnel_go_runner_info(r.c, p, n), take)
		return err
	})
	return value, err
}

// Tensor returns a copy of the model's parameter or buffer of that name.
func (r *Runner) Tensor(name string) (t *Tensor, err error) {
	err = r.doOnOwnThread(func() *C.grapnel_status {
		p, n := chars(name)
		out := C.grapnel_go_runner_get_tensor(r.c, p, n)
		if out.status == nil {
			t = ownedTensor(out)
		}
		return out.status
	})
	return t, err
}

// SetTensor copies value to the model's parameter or buffer of that name.
func (r *Runner) SetTensor(name string, value *Tensor) error {
	return r.do(func() (err error) {
		if err := value.check("value"); err != nil {
			return err
		}
		r.onOwnThread(func() {
			p, n := chars(name)
			err = take(C.grapnel_runner_set_tensor(r.c, p, n, value.c))
		})
		runtime.KeepAlive(value)
		return err
	})
}

// Close lets go of the run and of its hooks. ErrBusy while another call is going
// on, which RequestStop or a context ends, and from callbacks. It may be called
// twice.
func (r *Runner) Close() error {
	if r.calledBack() || !r.busy.CompareAndSwap(false, true) {
		return errBusy
	}
	defer r.end()
	r.destroy()
	return nil
}

// destroy lets go of what there is.
func (r *Runner) destroy() {
	r.mu.Lock() // Calls of any time end first; a later one finds no runner,
	c, progress := r.c, r.progress
	r.c, r.progress = nil, nil
	r.mu.Unlock() // and a callback that makes one isn't waited for in vain.
	runtime.SetFinalizer(r, nil)
	if c != nil {
		C.grapnel_runner_destroy(c)
	}
	C.grapnel_go_progress_release(progress)
	r.single.end()
	r.loan.end()
}
