package grapnel

/*
#include "native.h"
*/
import "C"

import (
	"context"
	"runtime"
	"sync"
)

// Weights says which of a run's a [Predictor] has.
type Weights int32

const (
	// WeightsEvaluated are what the run's evaluations see: the average that is
	// evaluated, or the trained ones where there is none.
	WeightsEvaluated Weights = C.GRAPNEL_EVALUATED
	// WeightsAveraged are that average; it is an error if there is none.
	WeightsAveraged Weights = C.GRAPNEL_AVERAGED
	// WeightsTrained are those that are being trained.
	WeightsTrained Weights = C.GRAPNEL_TRAINED
)

// A Predictor predicts with a run's weights, all of one moment, in models of its
// own: while the run trains, and when it is gone. The run isn't disturbed. Any
// number of goroutines may use it.
//
// It computes on as many OS threads of its own as it has replicas, at most:
// LibTorch keeps threads for each thread that it has computed on.
type Predictor struct {
	home     *home // Of the Runner that it is of, or nil.
	replicas int
	work     chan *prediction // Unbuffered: what is in it is being made.

	mu      sync.Mutex // Of these; held for no call that waits.
	c       *C.grapnel_predictor
	users   int  // Calls that are using c: the last one destroys it once it is closed.
	closed  bool // No call begins any more.
	workers int
}

type prediction struct {
	c      *C.grapnel_predictor
	inputs *C.grapnel_tensor
	out    C.grapnel_go_handle
	done   chan struct{}
}

// OpenPredictor makes a predictor from a checkpoint alone: nothing else of the
// run need be there. path is a checkpoint, or a work_dir, for the newest one in
// it that can be read whole. replicas, >= 1, is how many predictions can be made
// at the same time; others wait. Each needs a copy of the model. ErrNotFound if
// there is no checkpoint, or it hasn't those weights; ErrInvalidArgument also if
// the run's model was given in code.
func OpenPredictor(path string, weights Weights, replicas int) (*Predictor, error) {
	if err := compatible(); err != nil {
		return nil, err
	}
	p, n := chars(path)
	return newPredictor(nil, replicas, func() C.grapnel_go_handle {
		return C.grapnel_go_predictor_open(p, n, C.grapnel_weights(weights), C.int32_t(replicas))
	})
}

// Predictor makes a predictor with the run's weights of now, taken as by
// Predictor.Refresh, or with none before the run has loaded what it begins with.
// ErrInvalidArgument also if the run's model was given in code. It may be called
// any time, but not by callbacks of datasets and streams; the Runner may be
// closed before the Predictor.
func (r *Runner) Predictor(weights Weights, replicas int) (*Predictor, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.c == nil {
		return nil, gone("runner")
	}
	return newPredictor(r.home, replicas, func() C.grapnel_go_handle {
		return C.grapnel_go_runner_predictor(r.c, C.grapnel_weights(weights), C.int32_t(replicas))
	})
}

// use returns what a call uses, until release; nil if it is closed.
func (p *Predictor) use() *C.grapnel_predictor {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.users++
	return p.c
}

func (p *Predictor) release() {
	p.mu.Lock()
	p.users--
	last := p.closed && p.users == 0
	p.mu.Unlock()
	if last {
		p.destroy()
	}
}

func (p *Predictor) destroy() {
	close(p.work)
	C.grapnel_predictor_destroy(p.c)
}

func newPredictor(home *home, replicas int, open func() C.grapnel_go_handle) (*Predictor, error) {
	var out C.grapnel_go_handle
	home.compute(func() { out = open() })
	if out.status != nil {
		return nil, take(out.status)
	}
	p := &Predictor{
		c:        (*C.grapnel_predictor)(out.object),
		home:     home,
		replicas: replicas,
		work:     make(chan *prediction),
	}
	runtime.SetFinalizer(p, func(p *Predictor) { go p.Close() })
	return p, nil
}

// Predict returns outputs (N, ...) for inputs (N, ...): those that the run's
// validation would have with these weights, to the bit. ctx is for waiting until
// a replica is free: a prediction that has begun is made. ErrInvalidArgument if
// the inputs aren't of the shape of the run's data; ErrFailedPrecondition if
// there are no weights yet.
func (p *Predictor) Predict(ctx context.Context, inputs *Tensor) (*Tensor, error) {
	c := p.use()
	if c == nil {
		return nil, gone("predictor")
	}
	defer p.release()
	if err := inputs.check("inputs"); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, canceled(context.Cause(ctx))
	}
	it := &prediction{c: c, inputs: inputs.c, done: make(chan struct{})}
	select {
	case p.work <- it:
	default:
		p.addWorker()
		select {
		case p.work <- it:
		case <-ctx.Done():
			return nil, canceled(context.Cause(ctx))
		}
	}
	<-it.done
	runtime.KeepAlive(inputs)
	return tookTensor(it.out, take)
}

// addWorker makes a goroutine that predicts, if there are not enough.
func (p *Predictor) addWorker() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.workers == p.replicas {
		return
	}
	p.workers++
	work := p.work // A worker must not keep p, or p would never be collected.
	go runOnOwnThread(func() {
		for it := range work {
			it.out = C.grapnel_go_predictor_predict(it.c, it.inputs)
			close(it.done)
		}
	})
}

// Refresh takes newer weights; predictions that have begun end with theirs.
// After an error those before stay.
//
// Of a path: what is there now. Of a Runner: as they are now; while a call on it
// is going on, as they are after the next iteration of training, or where the
// call ends, which Refresh waits for. In callbacks of hooks, models, losses and
// metrics: at once. Not in those of datasets and streams, which the call may be
// waiting for. ErrFailedPrecondition before the run has loaded what it begins
// with, and once the Runner is closed.
func (p *Predictor) Refresh() error {
	c := p.use()
	if c == nil {
		return gone("predictor")
	}
	defer p.release()
	var err error
	p.home.compute(func() { err = take(C.grapnel_predictor_refresh(c)) })
	return err
}

// Iter returns the completed iterations of the run when the weights were taken
// that the next prediction is made with; 0 if there are none yet.
func (p *Predictor) Iter() int64 {
	c := p.use()
	if c == nil {
		return 0
	}
	defer p.release()
	return int64(C.grapnel_predictor_iter(c))
}

// Close lets go of the models, once the predictions and the Refreshes have ended
// that are going on; it doesn't wait for them. It may be called twice, and any
// time.
func (p *Predictor) Close() error {
	p.mu.Lock()
	first := !p.closed
	last := first && p.users == 0
	p.closed = true
	p.mu.Unlock()
	if first {
		runtime.SetFinalizer(p, nil)
	}
	if last {
		p.destroy()
	}
	return nil
}
